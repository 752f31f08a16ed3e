package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/payment-services/accounts/test/cluster"
)

// recording is one failover for the drawing.
type recording struct {
	history cluster.History
	outage  cluster.Outage
}

// The drawing, in pixels.
const (
	left, top    = 70, 50
	width        = 860
	panel, space = 110, 46
	bar          = 24
	lead         = 5 * time.Second // what is shown before the fault
)

// svg draws requests per second, errors and roles.
func (r *recording) svg() string {
	from := max(0, r.outage.Fault-lead)
	until := r.outage.Undone + r.outage.Rejoin + 5*time.Second
	seconds := int((until - from) / time.Second)
	var reads, writes, failed, refused [600]int
	count := func(at time.Duration, in *[600]int) {
		if s := int((at - from) / time.Second); at >= from && s < seconds && s < len(in) {
			in[s]++
		}
	}
	for _, read := range r.history.Reads {
		if read.Status == 200 {
			count(read.Ended, &reads)
		} else {
			count(read.Ended, &failed)
		}
	}
	for _, write := range r.history.Writes {
		if write.Outcome == cluster.Acked {
			count(write.Ended, &writes)
		} else {
			count(write.Ended, &refused)
		}
	}
	x := func(at time.Duration) float64 {
		return left + float64(at-from)/float64(until-from)*width
	}
	height := top + 2*(panel+space) + 2*(bar+8) + 60
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 %d" font-family="sans-serif" font-size="13" fill="#222">
<rect width="960" height="%d" fill="#fff"/>
<text x="%d" y="24" font-size="16">One failover: the primary's container is killed under load, and started again</text>
`, height, height, left)
	draw := func(y int, title string, good, bad *[600]int, color, trouble string) {
		most := 1
		for s := range seconds {
			most = max(most, good[s]+bad[s])
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%d/s</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n",
			left, y-8, title, left-6, y+10, most, left-6, y+panel)
		for s := range seconds {
			x0, w := x(from+time.Duration(s)*time.Second), float64(width)/float64(seconds)
			g, e := float64(good[s])/float64(most)*panel, float64(bad[s])/float64(most)*panel
			if good[s] > 0 {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x0, float64(y+panel)-g, w-1, g, color)
			}
			if bad[s] > 0 {
				fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x0, float64(y+panel)-g-e, w-1, e, trouble)
			}
		}
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#888"/>`+"\n", left, y+panel, left+width, y+panel)
	}
	draw(top+16, "reads: answered, and failed (red)", &reads, &failed, "#4a90c4", "#c0392b")
	draw(top+16+panel+space, "writes: acknowledged, and 503 with Retry-After (orange)", &writes, &refused, "#5a9e6f", "#e08e2b")

	y := top + 16 + 2*(panel+space) - 16
	first, second := r.outage.Before.Leader, cluster.Nodes[0]
	if first == second {
		second = cluster.Nodes[1]
	}
	// The new primary acknowledged its first write here.
	taken := until
	for _, w := range r.history.Writes {
		if w.Outcome == cluster.Acked && w.Began > r.outage.Fault+time.Second && w.Ended < taken {
			taken = w.Ended
		}
	}
	back := r.outage.Undone + r.outage.Rejoin
	part := func(row int, at, to time.Duration, color, text string) {
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/><text x="%.1f" y="%d" fill="#fff">%s</text>`+"\n",
			x(at), y+row*(bar+8), x(to)-x(at), bar, color, x(at)+5, y+row*(bar+8)+17, text)
	}
	const primary, replica, gone = "#5a9e6f", "#4a90c4", "#999"
	for row, name := range []string{first, second} {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" font-size="11">%s</text>`+"\n", left-6, y+row*(bar+8)+16, name)
	}
	part(0, from, r.outage.Fault, primary, "primary")
	part(0, r.outage.Fault, r.outage.Undone, gone, "killed")
	part(0, r.outage.Undone, back, "#c9a227", "")
	part(0, back, until, replica, "replica")
	part(1, from, taken, replica, "replica")
	part(1, taken, until, primary, "primary")
	for s := 0; s <= seconds; s += 5 {
		at := from + time.Duration(s)*time.Second
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" font-size="11">%d s</text>`+"\n", x(at), y+2*(bar+8)+16, int((at-r.outage.Fault)/time.Second))
	}
	fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#c0392b" stroke-dasharray="4 3"/>`+"\n</svg>\n", x(r.outage.Fault), top, x(r.outage.Fault), y+2*(bar+8))
	return b.String()
}
