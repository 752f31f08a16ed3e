package postgres_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each use is the body of a function of its own, with what the compiler must say of it; an empty
// complaint means that it compiles.
var uses = map[string]struct{ body, complaint string }{
	"write_through_primary": {
		`_ = primary.Write(ctx, func(ctx context.Context, q write.Querier) error {
			_, err := q.CreateUserGroupV1(ctx, "x", "x")
			return err
		})`, ""},
	"read_through_both": {
		`one := func(ctx context.Context, q read.Querier) error { _, err := q.ListUserGroupsV1(ctx); return err }
		_, _ = replica.Read(ctx, postgres.AdmitAny, one)
		_, _ = primary.Read(ctx, one)`, ""},
	"replica_as_dbtx": {
		`write.New(replica)`,
		"*postgres.Replica does not implement write.DBTX"},
	"primary_as_dbtx": {
		`write.New(primary)`,
		"*postgres.Primary does not implement write.DBTX"},
	"replica_as_read_dbtx": {
		`read.New(replica)`,
		"*postgres.Replica does not implement read.DBTX"},
	"write_method_on_replica": {
		`_, _ = replica.Read(ctx, postgres.AdmitAny, func(ctx context.Context, q read.Querier) error {
			_, err := q.CreateUserGroupV1(ctx, "x", "x")
			return err
		})`,
		"q.CreateUserGroupV1 undefined (type read.Querier has no field or method CreateUserGroupV1)"},
	"write_function_on_replica": {
		`_, _ = replica.Read(ctx, postgres.AdmitAny, func(ctx context.Context, q write.Querier) error { return nil })`,
		"in argument to replica.Read"},
	"replica_write": {
		`_ = replica.Write`,
		"replica.Write undefined"},
	"replica_transaction": {
		`_ = replica.InTx`,
		"replica.InTx undefined"},
	"pool_behind_replica": {
		`_ = replica.pool`,
		"replica.pool undefined (cannot refer to unexported field pool)"},
}

const useTemplate = `package NAME

import (
	"context"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
	"github.com/payment-services/accounts/internal/postgres"
)

var (
	_ = read.New
	_ = write.New
)

func use(ctx context.Context, primary *postgres.Primary, replica *postgres.Replica) {
	BODY
}

var _ = use
`

// A write on the replica, however it is tried, is a mistake that the compiler finds.
func TestMisuseDoesNotCompile(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	require.NoError(t, err)
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	dir := t.TempDir()
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		file := filepath.Join(dir, name+".go")
		text := strings.NewReplacer("NAME", name, "BODY", uses[name].body).Replace(useTemplate)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		overlay.Replace[filepath.Join(here, "misuse", name, "use.go")] = file
	}
	text, err := json.Marshal(overlay)
	require.NoError(t, err)
	overlayFile := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(overlayFile, text, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay="+overlayFile, "./misuse/...").CombinedOutput()
	require.Error(t, err)

	// The compiler's output begins each package with "# its/path".
	said := map[string]string{}
	for _, part := range strings.Split("\n"+string(out), "\n# ")[1:] {
		path, complaint, _ := strings.Cut(part, "\n")
		said[filepath.Base(path)] = complaint
	}
	for name, use := range uses {
		if use.complaint == "" {
			require.Empty(t, said[name], name)
		} else {
			require.Contains(t, said[name], use.complaint, "%s:\n%s", name, out)
		}
	}
	require.Len(t, said, len(uses)-2, "%s", out)
}
