// Command dbfunction writes what a new function of the database needs (make function): the migration,
// the query, the tests, the entry in test/plans of a read, and the Go name of its contract.
//
//	dbfunction -name count_group_members_v1 -kind read -params 'p_group_id uuid' -returns bigint
//
// A new version starts from the text of the one before. What only a person can write is marked FILL IN:
// make check finds a mark that is left, and the tests fail until they are written.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	var r request
	root := flag.String("root", ".", "the project")
	flag.StringVar(&r.name, "name", "", "<verb>_<noun>_v<N>")
	flag.StringVar(&r.kind, "kind", "", "read or write; a new version is what the old one is")
	flag.StringVar(&r.params, "params", "", "parameters as in SQL: 'p_user_id uuid, p_note text NULL'; NULL: may be NULL")
	flag.StringVar(&r.returns, "returns", "", "a contract table, a scalar type or void; a contract that does not exist is made")
	flag.StringVar(&r.columns, "columns", "", "columns of a new contract as in SQL: 'id uuid NOT NULL, note text'")
	flag.StringVar(&r.file, "file", "", "the file of queries, without folder and .sql, where the name of the function does not tell it")
	flag.Parse()
	if flag.NArg() != 0 || r.name == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*root, r); err != nil {
		fmt.Fprintln(os.Stderr, "dbfunction:", err)
		os.Exit(1)
	}
}

func run(root string, r request) error {
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
