package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/dbrules"
)

func TestRun_Arguments(t *testing.T) {
	t.Parallel()
	var help strings.Builder
	require.NoError(t, run(t.Context(), []string{"help"}, &help))
	for _, command := range []string{"function", "generate", "needs", "docs", "check", "unused"} {
		require.Contains(t, help.String(), "\n  "+command+" ")
		require.ErrorIs(t, run(t.Context(), []string{command, "-h"}, &help), flag.ErrHelp, command)
		require.ErrorIs(t, run(t.Context(), []string{command, "-unknown"}, &help), errUsage, command)
		require.ErrorIs(t, run(t.Context(), []string{command, "one", "two"}, &help), errUsage, command)
	}
	for _, args := range [][]string{nil, {"unknown"}, {"generate"}, {"needs"}, {"docs"}, {"function"}, {"check", "."}} {
		require.ErrorIs(t, run(t.Context(), args, &help), errUsage, args)
	}
}

func TestDocs_Check(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "rules.md")
	require.NoError(t, os.WriteFile(file, []byte("stale"), 0o600))
	require.ErrorContains(t, run(t.Context(), []string{"docs", "-check", file}, nil), "stale")
	require.NoError(t, run(t.Context(), []string{"docs", file}, nil))
	require.NoError(t, run(t.Context(), []string{"docs", "-check", file}, nil))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, dbrules.Docs(), string(text))
}
