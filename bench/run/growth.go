package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/payment-services/accounts/internal/dbgen/read"
	"github.com/payment-services/accounts/internal/dbgen/write"
)

// growthMark begins the part of scaling.md that is generated.
const growthMark = "<!-- measured: written by make bench-growth -->"

var growthSizes = []int{10_000, 200_000, 1_000_000}

const (
	growthRounds = 7
	// growthCalls of each function are timed in a round.
	growthCalls = 300
	growthWarm  = 100
	// farPage is the page that a reader of a keyset list has come to.
	pageSize, farPage = 50, 10_000
	// pointMost is what a point lookup among a million users may cost against ten thousand.
	pointMost = 1.5
)

// growthCall is a function call whose cost is looked at. A point lookup shall not feel the growth.
type growthCall struct {
	name  string
	point bool
	calls int // in a round
	call  func(ctx context.Context, r *read.Queries, w *write.Queries, t *growthTarget) error
}

// growthTarget is what the calls of one size ask for.
type growthTarget struct {
	users int
	ids   []uuid.UUID // a sample
	group uuid.UUID   // with every sixth user, at any size
	far   *uuid.UUID  // the last user before page 10,000, or before the last page
	next  int         // number of the next user to be inserted
}

var growthList = []growthCall{
	{"by identifier: phone", true, growthCalls, func(ctx context.Context, r *read.Queries, _ *write.Queries, t *growthTarget) error {
		_, err := r.GetUserByIdentifierV1(ctx, fmt.Sprintf("+7999%07d", 1+rand.IntN(t.users)))
		return err
	}},
	{"by identifier: email", true, growthCalls, func(ctx context.Context, r *read.Queries, _ *write.Queries, t *growthTarget) error {
		_, err := r.GetUserByIdentifierV1(ctx, fmt.Sprintf("user%d@example.com", 1+rand.IntN(t.users)))
		return err
	}},
	{"by id", true, growthCalls, func(ctx context.Context, r *read.Queries, _ *write.Queries, t *growthTarget) error {
		_, err := r.GetUserDetailV1(ctx, t.ids[rand.IntN(len(t.ids))])
		return err
	}},
	{"list after, page 1", false, growthCalls, func(ctx context.Context, r *read.Queries, _ *write.Queries, t *growthTarget) error {
		_, err := r.ListUsersAfterV1(ctx, read.ListUsersAfterV1Params{PageLimit: pageSize})
		return err
	}},
	{"list after, page 10,000", false, growthCalls, func(ctx context.Context, r *read.Queries, _ *write.Queries, t *growthTarget) error {
		_, err := r.ListUsersAfterV1(ctx, read.ListUsersAfterV1Params{PageLimit: pageSize, AfterID: t.far})
		return err
	}},
	{"members of a group", false, growthCalls, func(ctx context.Context, r *read.Queries, _ *write.Queries, t *growthTarget) error {
		_, err := r.ListGroupMembersV1(ctx, pageSize, t.group, nil)
		return err
	}},
	{"create a user", false, growthCalls, func(ctx context.Context, _ *read.Queries, w *write.Queries, t *growthTarget) error {
		t.next++
		phone := fmt.Sprintf("+7905%07d", t.next)
		_, err := w.CreateUserV1(ctx, write.CreateUserV1Params{
			IsActive: true, Profile: []byte(`{"city":"Пермь"}`), GroupKeys: []string{"client"},
			ContactTypes: []string{"phone"}, ContactValues: []string{phone}, ContactNormalized: []string{phone},
		})
		return err
	}},
}

// growthDatabase is the stack with one number of users, and a session of each login.
type growthDatabase struct {
	*stack
	target growthTarget
	reader *pgx.Conn // to the primary, as both must see the same
	writer *pgx.Conn
}

// runGrowth times single calls on three databases of different size, in turn, and writes a chart and
// the measured part of scaling.md if there is a dir.
func runGrowth(ctx context.Context, dir string) (err error) {
	var databases []*growthDatabase
	defer func() {
		for _, d := range databases {
			err = errors.Join(err, d.close())
		}
	}()
	for _, users := range growthSizes {
		say("making %d users", users)
		d, err := openGrowth(ctx, users)
		if d != nil {
			databases = append(databases, d)
		}
		if err != nil {
			return err
		}
	}
	times := make([][][]float64, len(growthList)) // by call, size, round: microseconds a call
	for i := range times {
		times[i] = make([][]float64, len(databases))
	}
	for n := range growthRounds {
		say("round %d of %d", n+1, growthRounds)
		for i, c := range growthList {
			for j, d := range databases {
				took, err := d.time(ctx, c)
				if err != nil {
					return fmt.Errorf("%s with %d users: %w", c.name, d.target.users, err)
				}
				times[i][j] = append(times[i][j], took)
			}
		}
	}
	t := growthTable(times)
	fmt.Printf("\n%s\n\n", t.title)
	t.text(os.Stdout)
	if dir == "" {
		return nil
	}
	var b bytes.Buffer
	t.markdown(&b)
	err = replaceMeasured(filepath.Join(dir, "scaling.md"), growthMark, b.Bytes())
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "scaling-growth.svg"), growthChart(times), 0o644))
}

func openGrowth(ctx context.Context, users int) (*growthDatabase, error) {
	s, err := openStack(ctx)
	if err != nil {
		return nil, err
	}
	d := &growthDatabase{stack: s, target: growthTarget{users: users}}
	// One machine carries all sizes: the standby would only take its memory and time.
	if err := s.cluster.Standby.Stop(); err != nil {
		return d, err
	}
	if _, err := s.load(ctx, users); err != nil {
		return d, err
	}
	for _, session := range []struct {
		conn **pgx.Conn
		url  string
	}{{&d.reader, s.urls.PrimaryReadURL}, {&d.writer, s.urls.WriteURL}} {
		if *session.conn, err = pgx.Connect(ctx, session.url); err != nil {
			return d, err
		}
	}
	const sampled = 10_000
	rows, err := s.super.Query(ctx, "SELECT id FROM accounts.users ORDER BY random() LIMIT $1", sampled)
	if err != nil {
		return d, err
	}
	if d.target.ids, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]); err != nil {
		return d, err
	}
	offset := min(users-pageSize, (farPage-1)*pageSize) - 1
	err = s.super.QueryRow(ctx, "SELECT id FROM accounts.users ORDER BY id OFFSET $1 LIMIT 1", offset).Scan(&d.target.far)
	if err != nil {
		return d, err
	}
	return d, s.super.QueryRow(ctx, "SELECT id FROM accounts.user_groups WHERE name = 'driver'").Scan(&d.target.group)
}

// time returns what one call takes, in microseconds.
func (d *growthDatabase) time(ctx context.Context, c growthCall) (float64, error) {
	r, w := read.New(d.reader), write.New(d.writer)
	for range growthWarm {
		if err := c.call(ctx, r, w, &d.target); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	for range c.calls {
		if err := c.call(ctx, r, w, &d.target); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(began).Microseconds()) / float64(c.calls), nil
}

func growthTable(times [][][]float64) table {
	last := len(growthSizes) - 1
	t := table{title: "Microseconds a call, one session, and the ratio inside each round", head: []string{"call"}}
	for _, users := range growthSizes {
		t.head = append(t.head, fmt.Sprintf("%d users", users))
	}
	t.head = append(t.head, fmt.Sprintf("%d / %d", growthSizes[last], growthSizes[0]), "target")
	for i, c := range growthList {
		row := []string{c.name}
		for _, rounds := range times[i] {
			row = append(row, spreadOf(rounds).format("%.0f"))
		}
		var ratios []float64
		for n := range times[i][0] {
			ratios = append(ratios, times[i][last][n]/times[i][0][n])
		}
		ratio, target := spreadOf(ratios), "–"
		if c.point {
			target = fmt.Sprintf("≤ %.1f, reached", pointMost)
			if ratio.median > pointMost {
				target = fmt.Sprintf("≤ %.1f, **missed by %.0f %%**", pointMost, 100*(ratio.median/pointMost-1))
			}
		}
		t.rows = append(t.rows, append(row, ratio.format("%.2f"), target))
	}
	return t
}

// growthChart draws what a call costs over the number of users, both axes logarithmic.
func growthChart(times [][][]float64) []byte {
	const left, top, width, height, legend = 60, 20, 420, 300, 210
	colours := []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#777777"}
	low, high := math.Inf(1), 0.0
	for _, call := range times {
		for _, rounds := range call {
			low, high = min(low, spreadOf(rounds).median), max(high, spreadOf(rounds).median)
		}
	}
	lowest, highest := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	x := func(users int) float64 {
		first, last := math.Log10(float64(growthSizes[0])), math.Log10(float64(growthSizes[len(growthSizes)-1]))
		return left + width*(math.Log10(float64(users))-first)/(last-first)
	}
	y := func(us float64) float64 { return top + height*(highest-math.Log10(us))/(highest-lowest) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img">`+"\n", left+width+legend, top+height+50)
	b.WriteString("<title>Microseconds a call by number of users</title>\n")
	for decade := lowest; decade <= highest; decade++ {
		for _, n := range []float64{1, 2, 5} {
			us := n * math.Pow(10, decade)
			if decade == highest && n > 1 {
				break
			}
			fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#777" stroke-opacity="0.3"/>`, left, left+width, y(us), y(us))
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end" %s>%.0f µs</text>`+"\n", left-6, y(us)+4, svgText, us)
		}
	}
	for _, users := range growthSizes {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" %s>%d users</text>`+"\n", x(users), top+height+22, svgText, users)
	}
	order := make([]int, len(times)) // labels in the order of the lines' ends
	for i := range order {
		order[i] = i
	}
	end := func(i int) float64 { return spreadOf(times[i][len(growthSizes)-1]).median }
	slices.SortFunc(order, func(i, j int) int { return int(math.Copysign(1, end(j)-end(i))) })
	const labelHeight = 17
	label := math.Inf(-1)
	for _, i := range order {
		var points bytes.Buffer
		for j, users := range growthSizes {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(users), y(spreadOf(times[i][j]).median))
		}
		label = max(label+labelHeight, y(end(i)))
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>`, bytes.TrimSpace(points.Bytes()), colours[i%len(colours)])
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" font-family="sans-serif" font-size="13" fill="%s">%s</text>`+"\n",
			left+width+10, label+4, colours[i%len(colours)], growthList[i].name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
