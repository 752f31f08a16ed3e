package main

import (
	"fmt"
	"io"
	"runtime/debug"
)

// A build sets version and commit with the linker: -ldflags "-X main.version=1.2.3 -X main.commit=<hash>".
// Without them the version is devVersion and the commit is what the go command has recorded.
var version, commit string

const (
	devVersion = "0.0.0-dev"
	// commitDigits of the hash that the go command has recorded are shown.
	commitDigits = 12
)

// release is what a binary was built from.
type release struct{ version, commit, toolchain string }

// currentRelease returns the release of this binary.
func currentRelease() release {
	info, _ := debug.ReadBuildInfo()
	return newRelease(version, commit, info)
}

// newRelease completes what the linker has set with the build information, which may be nil. The version of a
// build without a version names its commit.
func newRelease(version, commit string, info *debug.BuildInfo) release {
	r := release{version: version, commit: commit}
	if info != nil {
		r.toolchain = info.GoVersion
	}
	if r.commit == "" && info != nil {
		r.commit = recordedCommit(info)
	}
	if r.version == "" {
		r.version = devVersion
		if r.commit != "" {
			r.version += "+" + r.commit
		}
	}
	return r
}

// recordedCommit returns the commit that the go command has recorded; empty if it has not.
func recordedCommit(info *debug.BuildInfo) string {
	hash, modified := "", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			hash = setting.Value[:min(len(setting.Value), commitDigits)]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = ".modified"
		}
	}
	if hash == "" {
		return ""
	}
	return hash + modified
}

// write prints the release for server version.
func (r release) write(out io.Writer) error {
	commit := r.commit
	if commit == "" {
		commit = "unknown"
	}
	_, err := fmt.Fprintf(out, "version %s\ncommit  %s\ngo      %s\n", r.version, commit, r.toolchain)
	return err
}
