//go:build !race

package cachemodel

const thinner = 1
