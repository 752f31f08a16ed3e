package main

import (
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestNeeds(t *testing.T) {
	t.Parallel()
	dir := fstest.MapFS{
		"contract.txt": file("accounts.b_v1(p_id uuid, p_at timestamp with time zone, p_n numeric[])\n    RETURNS bigint\n" +
			"\naccounts.a_v2()\n    RETURNS void\n\naccounts.a_v1()\n    RETURNS void\n"),
		"queries/read/x.sql":  file("-- name: BV1 :one\nSELECT accounts.b_v1(p_id => @id);\n\n-- name: AV2 :exec\nSELECT accounts.a_v2();\n"),
		"queries/write/x.sql": file("-- name: AV2 :exec\nSELECT accounts.a_v2();\n"),
	}
	text, err := needs(dir)
	require.NoError(t, err)
	require.Equal(t, neededHead+
		"read accounts.a_v2()\nread accounts.b_v1(uuid,timestamp with time zone,numeric[])\nwrite accounts.a_v2()\n", text)

	dir["queries/write/y.sql"] = file("SELECT accounts.c_v1();")
	_, err = needs(dir)
	require.EqualError(t, err, "queries/write/y.sql: accounts.c_v1 is not in contract.txt")
}

func TestNeeds_Check(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, contractFile), nil, 0o600))
	require.ErrorContains(t, writeNeeds(dir, true), "stale")
	require.NoError(t, writeNeeds(dir, false))
	require.NoError(t, writeNeeds(dir, true))
	require.NoError(t, os.WriteFile(filepath.Join(dir, neededFile), []byte("read accounts.a_v1()\n"), 0o600))
	require.ErrorContains(t, writeNeeds(dir, true), "stale")
}
