package dbrules

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkFaults are functions that no query calls.
var checkFaults = []fault{
	{"read", functionQuery, good},
	{"write", functionQuery, writing(lock + setUser + record)},
}

func TestUnqueried_EachFunctionIsFound(t *testing.T) {
	t.Parallel()
	for _, f := range checkFaults {
		t.Run(f.name, func(t *testing.T) {
			tree := readTree(t, root)
			require.Empty(t, unqueried(tree, staticRoutines(tree)))
			tree.migrations = append(tree.migrations, newMigration(filepath.Base(next), head+f.plant+foot))
			requireOnly(t, f.rule, unqueried(tree, staticRoutines(tree)))
		})
	}
}

// check runs everything on a copy of the tree with one more migration.
func check(t *testing.T, up, down string) Report {
	t.Helper()
	dir := copyTree(t)
	write(t, dir, next, head+up+foot+down)
	migrate, super := empty(t)
	report, err := Check(t.Context(), Config{Root: dir, MigrateURL: migrate, SuperURL: super, SQLC: tool(t, "sqlc"), Squawk: squawk(t)})
	require.NoError(t, err)
	return report
}

func rulesOf(found []Violation) (names []string) {
	for _, v := range found {
		names = append(names, v.Rule)
	}
	return names
}

func TestCheck_AProcedureIsOneFindingAndTheContractIsCompared(t *testing.T) {
	t.Parallel()
	report := check(t, `CREATE PROCEDURE accounts.feed_v1() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
ALTER FUNCTION accounts.get_contact_v1(uuid) STRICT;
`, "ALTER FUNCTION accounts.get_contact_v1(uuid) CALLED ON NULL INPUT;\nDROP PROCEDURE accounts.feed_v1();\n")
	require.Subset(t, rulesOf(report.Violations), []string{"no-procedures", contractFrozen, "function-strict"})
	require.NotContains(t, rulesOf(report.Violations), outsideSchema)
	require.Empty(t, strings.Join(report.Notes, "\n"))
}

func TestCheck_ATriggerIsOneFinding(t *testing.T) {
	t.Parallel()
	report := check(t, `CREATE FUNCTION accounts.on_pet_v1() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ BEGIN RETURN NEW; END $$;
COMMENT ON FUNCTION accounts.on_pet_v1() IS 'A trigger.';
CREATE TRIGGER users_pet AFTER INSERT ON accounts.users FOR EACH ROW EXECUTE FUNCTION accounts.on_pet_v1();
`, "DROP TRIGGER users_pet ON accounts.users;\nDROP FUNCTION accounts.on_pet_v1();\n")
	require.Contains(t, rulesOf(report.Violations), "no-triggers")
	for _, v := range report.Violations { // generated: a file for the function is missing
		require.Contains(t, []string{"no-triggers", generated}, v.Rule, "%+v", v)
	}
}

// A syntax error has its line, and what needs no database is checked after it.
func TestCheck_MigrationsThatDoNotRun(t *testing.T) {
	t.Parallel()
	t.Run("syntax", func(t *testing.T) {
		report := check(t, "SELECT 1;\nCREATE TABL accounts.pets (id uuid);\n", "")
		require.Equal(t, []string{migrationSyntax}, rulesOf(report.Violations))
		require.Equal(t, 6, report.Violations[0].Line)
		var out bytes.Buffer
		report.Write(&out)
		require.Contains(t, out.String(), next+":6: ")
	})
	t.Run("object", func(t *testing.T) {
		up := "-- +goose StatementBegin\n" + strings.Replace(writing(lock+setUser), "END $$;\n", "END $$;\n-- +goose StatementEnd\n", 1) +
			"SELECT\n    no_such_column\n  FROM accounts.users;\n"
		report := check(t, up, "")
		require.Subset(t, rulesOf(report.Violations), []string{migrationUp, writeRecords})
		for _, v := range report.Violations {
			if v.Rule == migrationUp {
				at := strings.Index(head+up, "no_such_column")
				require.Equal(t, lineOf(head+up, at), v.Line, v.Message)
			}
		}
	})
}
