package main

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLinesAreThoseOfSlog(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 9, 8, 7, 654321000, time.FixedZone("", 3*3600))
	for name, attrs := range map[string][]slog.Attr{
		"none":     nil,
		"request":  {slog.String("route", "/accounts/users/{user_id}"), slog.Int("status", 200), slog.Float64("duration_ms", 0.731), slog.Bool("ok", true)},
		"numbers":  {slog.Int64("a", math.MinInt64), slog.Float64("b", 0), slog.Float64("c", 1e-6), slog.Float64("d", 1e20), slog.Float64("e", 12345678.125)},
		"exponent": {slog.Float64("a", 1e-7), slog.Float64("b", 1e21), slog.Float64("c", -0.5)},
		"escapes":  {slog.String("a", `"quoted\"`), slog.String("b", "two\nlines"), slog.String("c", "<html>&")},
		"unicode":  {slog.String("a", "Иван"), slog.String("b", "\xff"), slog.String("c", "\u2028"), slog.String("d", "\x7f")},
		"key":      {slog.String("a\"b", "c"), slog.String("", "d")},
		"others":   {slog.Any("error", errors.New("text")), slog.Duration("d", time.Second), slog.Time("t", at), slog.Group("g", slog.Int("n", 1))},
	} {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelError, slog.LevelInfo + 1} {
			var ours, theirs bytes.Buffer
			record := slog.NewRecord(at, level, "request", 0)
			record.AddAttrs(attrs...)
			h := lineHandler{slog.NewJSONHandler(&ours, &slog.HandlerOptions{Level: slog.LevelDebug}), &ours}
			require.NoError(t, h.Handle(t.Context(), record))
			require.NoError(t, slog.NewJSONHandler(&theirs, nil).Handle(t.Context(), record))
			require.Equal(t, theirs.String(), ours.String(), name)
		}
	}
}

// What is fixed in a logger is slog's to write.
func TestLoggersWithAttributes(t *testing.T) {
	t.Parallel()
	var ours, theirs bytes.Buffer
	without := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	slog.New(lineHandler{slog.NewJSONHandler(&ours, without), &ours}).With("a", 1).WithGroup("g").Info("m", "b", 2)
	slog.New(slog.NewJSONHandler(&theirs, without)).With("a", 1).WithGroup("g").Info("m", "b", 2)
	require.Equal(t, theirs.String(), ours.String())
}
