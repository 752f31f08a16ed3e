package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/db"
)

// serverTimeout bounds all questions to one server.
const serverTimeout = 10 * time.Second

// unusedCommand lists the functions without calls since the servers' statistics were last reset, so that an
// old version can be dropped:
//
//	DATABASE_WRITE_URL=… DATABASE_READ_URL=… dbtool unused [-all]
//
// Each server counts its own calls: name every replica in DATABASE_READ_URL, separated by spaces, and
// none through a balancer. Any login will do. The servers must run with track_functions = pl.
func unusedCommand(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("unused", flag.ContinueOnError)
	all := flags.Bool("all", false, "list the functions that are called, too")
	const about = `
Lists the functions without calls on the primary (DATABASE_WRITE_URL) and on the replicas
(DATABASE_READ_URL: all of them, separated by spaces). Any login will do; track_functions must be pl.

`
	if err := parse(flags, "", about, args); err != nil {
		return err
	}
	return unused(ctx, os.Getenv("DATABASE_WRITE_URL"), strings.Fields(os.Getenv("DATABASE_READ_URL")), *all, out)
}

func unused(ctx context.Context, primary string, replicas []string, all bool, out io.Writer) error {
	if primary == "" || len(replicas) == 0 {
		return errors.New("DATABASE_WRITE_URL and DATABASE_READ_URL are needed (dbtool unused -h)")
	}
	written, err := ask(ctx, "the primary", primary)
	if err != nil {
		return err
	}
	if written.inRecovery {
		return errors.New("DATABASE_WRITE_URL leads to a standby")
	}
	reads := counters{calls: map[string]int64{}}
	for i, url := range replicas {
		name := fmt.Sprintf("replica %d", i+1)
		one, err := ask(ctx, name, url)
		if err != nil {
			return err
		}
		if !one.inRecovery {
			return fmt.Errorf("%s of DATABASE_READ_URL is a primary: its calls are counted once already", name)
		}
		for signature, n := range one.calls {
			reads.calls[signature] += n
		}
		reads.since = latest(reads.since, one.since)
	}
	return printCalls(out, written, reads, all)
}

// counters are what one server has counted.
type counters struct {
	functions  []string // signatures of those that are granted to somebody
	calls      map[string]int64
	since      *time.Time // nil: never reset
	inRecovery bool
}

// ask reads the counters of one server. The text of an error holds no connection string.
func ask(ctx context.Context, name, url string) (c counters, err error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return c, fmt.Errorf("the connection string of %s is malformed", name) // the cause quotes it
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return c, fmt.Errorf("connect to %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var tracked string
	err = conn.QueryRow(ctx, `
		SELECT current_setting('track_functions'), pg_is_in_recovery(), d.stats_reset
		  FROM pg_stat_database AS d WHERE d.datname = current_database()`).Scan(&tracked, &c.inRecovery, &c.since)
	if err != nil {
		return c, fmt.Errorf("ask %s: %w", name, err)
	}
	if tracked == "none" {
		return c, fmt.Errorf("%s counts no calls: set track_functions = pl there, and wait", name)
	}
	rows, err := conn.Query(ctx, `
		SELECT p.oid::regprocedure::text, coalesce(s.calls, 0)
		  FROM pg_proc AS p
		  JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = 'accounts'
		  LEFT JOIN pg_stat_user_functions AS s ON s.funcid = p.oid
		 WHERE EXISTS (SELECT FROM aclexplode(p.proacl) AS g WHERE g.grantee <> p.proowner)
		 ORDER BY p.proname COLLATE "C"`)
	if err != nil {
		return c, fmt.Errorf("ask %s: %w", name, err)
	}
	c.calls = map[string]int64{}
	var signature string
	var calls int64
	_, err = pgx.ForEachRow(rows, []any{&signature, &calls}, func() error {
		c.functions = append(c.functions, signature)
		c.calls[signature] = calls
		return nil
	})
	if err != nil {
		return c, fmt.Errorf("ask %s: %w", name, err)
	}
	return c, nil
}

func printCalls(out io.Writer, primary, replicas counters, all bool) error {
	reads, writes := db.NeededFunctions()
	needed := slices.Concat(reads, writes)
	newest := map[string]int{}
	for _, signature := range primary.functions {
		name, version := split(signature)
		newest[name] = max(newest[name], version)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FUNCTION\tPRIMARY\tREPLICAS\tNEWER\tNEEDED BY THIS BUILD")
	for _, signature := range primary.functions {
		written, read := primary.calls[signature], replicas.calls[signature]
		if written+read > 0 && !all {
			continue
		}
		name, version := split(signature)
		newer := "-"
		if newest[name] > version {
			newer = "_v" + strconv.Itoa(newest[name])
		}
		need := "no"
		if slices.Contains(needed, signature) {
			need = "yes"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", signature, written, read, newer, need)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\ncalls since: primary %s, replicas %s\n", text(primary.since), text(replicas.since))
	return err
}

var versioned = regexp.MustCompile(`^(.*)_v([0-9]+)\(`)

// split takes "schema.name_v2(types)" apart.
func split(signature string) (name string, version int) {
	m := versioned.FindStringSubmatch(signature)
	if m == nil {
		return signature, 0
	}
	version, err := strconv.Atoi(m[2])
	if err != nil {
		return signature, 0 // more digits than an int has
	}
	return m[1], version
}

// latest is the later of two times: for less time than that nothing is known.
func latest(a, b *time.Time) *time.Time {
	if a == nil || (b != nil && b.After(*a)) {
		return b
	}
	return a
}

func text(since *time.Time) string {
	if since == nil {
		return "they were first counted (never reset; a crash of the server empties them)"
	}
	return since.UTC().Format(time.RFC3339)
}
