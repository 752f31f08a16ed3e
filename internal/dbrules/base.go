package dbrules

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"strings"
)

// Base is the commit that says what is released: what others may have applied and call.
type Base struct {
	Commit string // empty: there is nothing to compare with
	How    string // how it was chosen, or why it was not

	root string
}

// FindBase chooses the base of the work tree: on a branch, where it left main; on main itself the
// latest tag before the last commit, else the commit before it.
func FindBase(ctx context.Context, root string) (Base, error) {
	base := Base{root: root}
	head, err := base.git(ctx, "rev-parse", "HEAD")
	if errors.Is(err, exec.ErrNotFound) {
		base.How = "git is not installed"
		return base, nil
	}
	if err != nil {
		base.How = "this is not a git repository"
		return base, nil
	}
	main, name := "", ""
	for _, name = range []string{"main", "origin/main"} {
		if main, err = base.git(ctx, "rev-parse", "--verify", "--quiet", name+"^{commit}"); err == nil {
			break
		}
	}
	branch, _ := base.git(ctx, "symbolic-ref", "--quiet", "--short", "HEAD") // none: HEAD is detached
	if main != "" && branch != "main" && (branch != "" || main != head) {
		if base.Commit, err = base.git(ctx, "merge-base", "HEAD", name); err == nil {
			base.How = fmt.Sprintf("%s (where this branch left %s)", short(base.Commit), name)
			return base, nil
		}
		return base.none(ctx, "HEAD and "+name+" have no common commit"), nil
	}
	if main == "" {
		return base.none(ctx, "there is no branch main"), nil
	}
	if tag, err := base.git(ctx, "describe", "--tags", "--abbrev=0", "HEAD~1"); err == nil {
		if base.Commit, err = base.git(ctx, "rev-parse", tag+"^{commit}"); err != nil {
			return Base{}, err
		}
		base.How = fmt.Sprintf("%s (the latest tag before main)", tag)
		return base, nil
	}
	if base.Commit, err = base.git(ctx, "rev-parse", "--verify", "--quiet", "HEAD~1"); err == nil {
		base.How = fmt.Sprintf("%s (the commit before main; there is no tag)", short(base.Commit))
		return base, nil
	}
	return base.none(ctx, "main has one commit"), nil
}

func (b Base) none(ctx context.Context, how string) Base {
	b.Commit, b.How = "", how
	if shallow, err := b.git(ctx, "rev-parse", "--is-shallow-repository"); err == nil && shallow == "true" {
		b.How += "; this clone is shallow: git fetch --unshallow"
	}
	return b
}

// files returns the text of every file under a folder of the base, by its path.
func (b Base) files(ctx context.Context, folder string) (map[string]string, error) {
	texts := map[string]string{}
	if b.Commit == "" {
		return texts, nil
	}
	// Without --full-tree the paths begin at the root of the project, which may be a folder of the repository.
	list, err := b.git(ctx, "ls-tree", "-r", "--name-only", b.Commit, folder)
	if err != nil {
		return nil, err
	}
	for file := range strings.FieldsSeq(list) {
		if texts[path.Clean(file)], err = b.show(ctx, file); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func (b Base) show(ctx context.Context, file string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", "-C", b.root, "show", b.Commit+":./"+file)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git show %s:%s: %w", b.Commit, file, err)
	}
	return string(out), nil
}

func (b Base) git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", b.root}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func short(commit string) string { return commit[:min(len(commit), 12)] }
