//go:build !race

package model

const thinner = 1
