package main

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewRelease(t *testing.T) {
	t.Parallel()
	const hash = "0123456789abcdef0123456789abcdef01234567"
	info := func(modified string) *debug.BuildInfo {
		return &debug.BuildInfo{GoVersion: "go1.26.0", Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: hash}, {Key: "vcs.modified", Value: modified},
		}}
	}
	for name, test := range map[string]struct {
		version, commit string
		info            *debug.BuildInfo
		want            release
	}{
		"nothing is known":      {"", "", nil, release{devVersion, "", ""}},
		"no version control":    {"", "", &debug.BuildInfo{GoVersion: "go1.26.0"}, release{devVersion, "", "go1.26.0"}},
		"commit of the go tool": {"", "", info("false"), release{"0.0.0-dev+0123456789ab", "0123456789ab", "go1.26.0"}},
		"modified work tree":    {"", "", info("true"), release{"0.0.0-dev+0123456789ab.modified", "0123456789ab.modified", "go1.26.0"}},
		"version of the linker": {"1.2.3", "", info("false"), release{"1.2.3", "0123456789ab", "go1.26.0"}},
		"commit of the linker":  {"", "fedcba98", info("true"), release{"0.0.0-dev+fedcba98", "fedcba98", "go1.26.0"}},
		"both of the linker":    {"1.2.3", hash, nil, release{"1.2.3", hash, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, test.want, newRelease(test.version, test.commit, test.info))
		})
	}
}

func TestVersion_IsStampedIntoTheBinary(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the server")
	}
	file := filepath.Join(t.TempDir(), "server")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file,
		"-ldflags=-X main.version=1.2.3 -X main.commit=0123456789abcdef", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.CommandContext(t.Context(), file, "version").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "version 1.2.3\ncommit  0123456789abcdef\ngo      "+runtime.Version()+"\n", string(out))
}

func TestVersion_WithoutAStampIsThatOfDevelopment(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"version"}, &out))
	require.True(t, strings.HasPrefix(out.String(), "version "+devVersion), out.String())
	require.Contains(t, out.String(), "\ngo      "+runtime.Version()+"\n")
}
