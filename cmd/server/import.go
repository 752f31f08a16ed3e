package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/payment-services/accounts/internal/accounts"
)

const (
	progressInterval = 200 * time.Millisecond
	// Without a terminal, progress is a log line this often.
	logInterval = 5 * time.Second
)

// errNotAllImported makes the exit code 1.
var errNotAllImported = errors.New("some rows were not imported; the result lists them")

// importFile stages a file as an import, as an upload does, and processes it until it is finished. If
// importFile is interrupted, the service finishes the import.
func importFile(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("import", flag.ContinueOnError)
	dryRun := flags.Bool("dry-run", false, "print what would happen, write nothing")
	onConflict := flags.String("on-conflict", string(accounts.Skip), "what happens to phones that exist: skip, merge or error")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: server import [flags] FILE\n\nFILE has the columns phone and user_groups. "+
			"Exit code 0: every row was imported or exists; 1: some rows were refused, or the import failed.\n\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	choice := accounts.OnConflict(*onConflict)
	if flags.NArg() != 1 || choice != accounts.Skip && choice != accounts.Merge && choice != accounts.Error {
		flags.Usage()
		return errors.New("import: want one FILE, and -on-conflict skip, merge or error")
	}
	var cfg Core
	if err := load(&cfg); err != nil {
		return err
	}
	core, err := openCore(cfg, os.Stderr, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, core.close()) }()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { core.Run(background) })
	defer running.Wait()
	defer stop()

	file, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, job, err := core.Accounts.Upload(ctx, file, info.Size(), accounts.UploadOptions{
		BulkOptions: accounts.BulkOptions{OnConflict: choice, DryRun: *dryRun}, Async: true,
	})
	if err != nil {
		return err
	}
	done, err := finish(ctx, core, *job)
	if err != nil {
		return fmt.Errorf("import %s goes on in the service: %w", job.ID, err)
	}
	if done.ErrorMessage != "" {
		fmt.Fprintf(stdout, "import %s: %s\n", done.ID, done.ErrorMessage)
	}
	c := done.Counts
	fmt.Fprintf(stdout, "import %s: %s, %d rows: %d created, %d exist, %d merged, %d in conflict, %d invalid\n",
		done.ID, done.Phase, done.Total, c.Created, c.Exists, c.Merged, c.Conflict, c.Invalid)
	if err := printRefused(ctx, core.Accounts, done, stdout); err != nil {
		return err
	}
	if c.Conflict+c.Invalid > 0 || done.Done < done.Total {
		return errNotAllImported
	}
	return nil
}

// finish processes a job until it is finished, and shows its progress. A chunk that failed is tried again
// until the job itself has failed.
func finish(ctx context.Context, core *core, job accounts.ImportJob) (accounts.ImportJob, error) {
	var bar *progressbar.ProgressBar
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar = progressbar.Default(int64(job.Total), "importing")
	}
	var lastLook time.Time
	lastLog := time.Now()
	for !job.Finished() {
		worked, failure := core.Accounts.RunChunkOf(ctx, job.ID)
		if failure != nil {
			core.log.WarnContext(ctx, "a chunk of the import failed; it is tried again in a smaller size", "error", failure)
		}
		if worked && time.Since(lastLook) < progressInterval {
			continue
		}
		lastLook = time.Now()
		var err error
		if job, err = core.Accounts.Import(ctx, job.ID); err != nil {
			return job, errors.Join(err, failure)
		}
		switch {
		case bar != nil:
			_ = bar.Set(job.Done) // an error of the terminal does not stop the import
		case time.Since(lastLog) >= logInterval:
			lastLog = time.Now()
			core.log.InfoContext(ctx, "importing", "done", job.Done, "total", job.Total)
		}
		if !worked && !job.Finished() { // the service works on the job, or the database is slow
			select {
			case <-ctx.Done():
				return job, ctx.Err()
			case <-time.After(progressInterval):
			}
		}
	}
	if bar != nil {
		_ = bar.Finish()
	}
	return job, nil
}

// printRefused names the rows that were not imported, without their values.
func printRefused(ctx context.Context, s *accounts.Service, job accounts.ImportJob, stdout io.Writer) error {
	if job.Counts.Conflict+job.Counts.Invalid == 0 {
		return nil
	}
	return s.ImportRows(ctx, job.ID, func(row accounts.ImportRow) error {
		if row.Status != accounts.RowConflict && row.Status != accounts.RowInvalid {
			return nil
		}
		_, err := fmt.Fprintf(stdout, "row %d: %s, %s (%s)\n", row.Number, row.Status, row.Code, row.Column)
		return err
	})
}
