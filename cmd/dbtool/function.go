package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// functionCommand writes what a new function of the database needs: the migration, the query, the tests,
// the entry in test/plans of a read, and the Go name of its contract.
//
//	dbtool function -name count_group_members_v1 -kind read -params 'p_group_id uuid' -returns bigint
//
// A new version starts from the text of the previous version. What only a person can write is marked
// FILL IN: make check reports a mark that is left, and the tests fail until they are written.
func functionCommand(args []string) error {
	var r request
	flags := flag.NewFlagSet("function", flag.ContinueOnError)
	root := flags.String("root", ".", "the project")
	flags.StringVar(&r.name, "name", "", "<verb>_<noun>_v<N>")
	flags.StringVar(&r.kind, "kind", "", "read or write; a new version is what the old one is")
	flags.StringVar(&r.params, "params", "", "parameters as in SQL: 'p_user_id uuid, p_note text NULL'; NULL: may be NULL")
	flags.StringVar(&r.returns, "returns", "", "a contract table, a scalar type or void; a contract that does not exist is made")
	flags.StringVar(&r.columns, "columns", "", "columns of a new contract as in SQL: 'id uuid NOT NULL, note text'")
	flags.StringVar(&r.file, "file", "", "the file of queries, without folder and .sql, where the name of the function does not tell it")
	if err := parse(flags, "", "", args); err != nil {
		return err
	}
	if r.name == "" {
		flags.Usage()
		return errUsage
	}
	return writeFunction(*root, r)
}

func writeFunction(root string, r request) error {
	files, err := scaffold(root, r)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(root, f.path), []byte(f.text), 0o644); err != nil {
			return err
		}
		verb := "wrote"
		if f.changed {
			verb = "added to"
		}
		fmt.Printf("%-9s %s\n", verb, f.path)
	}
	fmt.Println("\nReplace what is marked FILL IN, then: make generate && make check\n" +
		"The tests fail until they are written: go test ./db" + plansHint(files))
	return nil
}

// plansHint names the test of the plans if it has a new entry.
func plansHint(files []output) string {
	for _, f := range files {
		if f.path == plansFile {
			return " ./test/plans"
		}
	}
	return ""
}
