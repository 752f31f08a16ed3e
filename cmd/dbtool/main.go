// Command dbtool works on the SQL of the project; `dbtool help` lists its subcommands. The Makefile runs
// them: make function, make generate, make check and make unused.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: dbtool <command> [flags]

  function         write the files of a new database function
  generate DIR     write functions/*.sql and contract.txt of DIR (db) from the migrations
  needs DIR        write needed.txt of DIR (db): the functions that the server calls
  docs FILE        write the rules of dbtool check as a page (docs/sql-rules.md)
  check            check migrations, functions and queries against every rule
  unused           list the functions without calls on running servers
  help             print this

dbtool <command> -h lists the flags of a command.
`

// folderMode lets the account that runs PostgreSQL enter a folder, but not list it.
const folderMode = 0o711

// errUsage ends a command whose arguments are wrong, after it has printed its usage.
var errUsage = errors.New("wrong arguments")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "dbtool "+os.Args[1]+":", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "function":
		return functionCommand(args)
	case "generate":
		return generateCommand(ctx, args)
	case "needs":
		return needsCommand(args)
	case "docs":
		return docsCommand(args)
	case "check":
		return checkCommand(ctx, args)
	case "unused":
		return unusedCommand(ctx, args, out)
	case "help", "-h", "--help":
		_, err := io.WriteString(out, usage)
		return err
	default:
		fmt.Fprint(os.Stderr, usage)
		return errUsage
	}
}

// parse parses the arguments of a command: flags, then the operand, whose name is empty if the command takes
// none. Where it returns an error it has printed the usage: a line, the text about the command, the flags.
func parse(flags *flag.FlagSet, operand, about string, args []string) error {
	count := 1
	if operand == "" {
		count = 0
	}
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: dbtool %s [flags] %s\n%s", flags.Name(), operand, about)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() != count {
		flags.Usage()
		return errUsage
	}
	return nil
}
