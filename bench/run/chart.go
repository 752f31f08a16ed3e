package main

import (
	"bytes"
	"fmt"
	"math"
)

// The parts of a bar, in their order. The colours are told apart by people who are colour-blind, on
// light and dark ground.
var barParts = []struct {
	name, colour string
	of           func(sample) float64
}{
	{"server", "#0072b2", serverCPU},
	{"PostgreSQL", "#e69f00", func(s sample) float64 { return s.Postgres }},
	{"Redis", "#cc79a7", func(s sample) float64 { return s.Redis }},
}

const svgText = `font-family="sans-serif" font-size="13" fill="#777"`

// cpuChart shows what a request costs: bars of CPU time, medians.
func (r *results) cpuChart() []byte {
	const left, width, line, top, bar = 210, 520, 30, 50, 18
	var most float64
	for _, name := range r.order {
		var sum float64
		for _, p := range barParts {
			sum += r.median(name, p.of)
		}
		most = max(most, sum)
	}
	step := roundStep(most / 5)
	most = math.Ceil(most/step) * step
	height := top + line*len(r.order) + 30
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img">`+"\n", left+width+60, height)
	fmt.Fprintf(&b, "<title>CPU time a request, in microseconds: server, PostgreSQL, Redis</title>\n")
	for i, p := range barParts {
		fmt.Fprintf(&b, `<rect x="%d" y="8" width="12" height="12" fill="%s"/><text x="%d" y="19" %s>%s</text>`+"\n",
			left+i*120, p.colour, left+i*120+18, svgText, p.name)
	}
	scale := width / most
	for v := 0.0; v <= most; v += step {
		x := left + v*scale
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#777" stroke-opacity="0.3"/>`, x, x, top-12, height-28)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" %s>%.0f</text>`+"\n", x, height-10, svgText, v)
	}
	for i, name := range r.order {
		y, x := top+i*line, float64(left)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" %s>%s</text>`, left-8, y+14, svgText, name)
		for _, p := range barParts {
			w := r.median(name, p.of) * scale
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, x, y, w, bar, p.colour)
			x += w
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" %s>%.0f</text>`+"\n", x+6, y+14, svgText, (x-left)/scale)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// roundStep returns the next of 1, 2, 5, 10, 20, 50 ... that is not less.
func roundStep(least float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(least)))
	for _, n := range []float64{1, 2, 5} {
		if n*unit >= least {
			return n * unit
		}
	}
	return 10 * unit
}
