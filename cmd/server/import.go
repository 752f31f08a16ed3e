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

// errNotAllImported makes the exit code say that some rows were refused.
var errNotAllImported = errors.New("some rows were not imported; the result says which")

// importFile stages a file as a job, as an upload does, and works on it until it is done. If it is
// interrupted, the service finishes the job.
func importFile(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("import", flag.ContinueOnError)
	dryRun := flags.Bool("dry-run", false, "say what would happen, write nothing")
	onConflict := flags.String("on-conflict", string(accounts.Skip), "what becomes of phones that exist: skip, merge or error")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: server import [flags] FILE\n\nFILE has the columns phone and user_groups. "+
			"Exit code 0: every row is there; 1: some rows were refused, or nothing worked.\n\n")
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
	c := done.Counts
	fmt.Fprintf(stdout, "import %s: %s, %d rows: %d created, %d exist, %d merged, %d in conflict, %d invalid\n",
		done.ID, done.Phase, done.Total, c.Created, c.Exists, c.Merged, c.Conflict, c.Invalid)
	if err := printRefused(ctx, core.Accounts, done, stdout); err != nil {
		return err
	}
	if c.Conflict+c.Invalid > 0 || done.ErrorCode != "" {
		return errNotAllImported
	}
	return nil
}

// finish works on jobs until this one is done, and shows how far it is.
func finish(ctx context.Context, core *core, job accounts.ImportJob) (accounts.ImportJob, error) {
	var bar *progressbar.ProgressBar
	if term.IsTerminal(int(os.Stderr.Fd())) {
		bar = progressbar.Default(int64(job.Total), "importing")
	}
	var lastLook time.Time
	lastLog := time.Now()
	for !job.Finished() {
		worked, err := core.Accounts.RunImportChunk(ctx)
		if err != nil {
			return job, err
		}
		if worked && time.Since(lastLook) < progressInterval {
			continue
		}
		lastLook = time.Now()
		if job, err = core.Accounts.Import(ctx, job.ID); err != nil {
			return job, err
		}
		switch {
		case bar != nil:
			_ = bar.Set(job.Done) // a terminal that went away stops nothing
		case time.Since(lastLog) >= logInterval:
			lastLog = time.Now()
			core.log.InfoContext(ctx, "importing", "done", job.Done, "total", job.Total)
		}
		if !worked { // the service is at it
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
