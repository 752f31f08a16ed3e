package main

import "context"

func runGrowth(context.Context, string) error { return nil }
