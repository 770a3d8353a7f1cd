package main

import (
	"fmt"
	"strings"
)

// The picture's frame, in pixels.
const (
	width, height             = 900, 420
	left, right, top, bottom_ = 70, 170, 40, 50
)

// picture draws the rollout: what the plan allows, what was given out, and what came of it.
func (w *world) picture() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="22" font-size="14">%s: %s</text>`+"\n", left, w.name, w.verdict)
	last := max(w.points[len(w.points)-1].minute, 1)
	most := int64(1)
	for _, p := range w.points {
		most = max(most, p.granted, p.complete)
	}
	x := func(minute int64) float64 { return left + float64(minute)/float64(last)*(width-left-right) }
	y := func(n float64) float64 { return top + (1-min(n/float64(most), 1))*(height-top-bottom_) }
	for i := range 5 {
		n := float64(most) * float64(i) / 4
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`+"\n", left, width-right, y(n), y(n), left-6, y(n)+4, n)
		at := last * int64(i) / 4
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.1f h</text>`+"\n", x(at), height-bottom_+18, float64(at)/60)
	}
	step := max(len(w.points)/600, 1)
	for i, line := range []struct {
		name, color string
		value       func(p point) float64
	}{
		{"the plan's ramp", "#999999", func(p point) float64 { return p.reached * float64(w.machines) }},
		{"given the release", "#1f77b4", func(p point) float64 { return float64(p.granted) }},
		{"updating", "#ff7f0e", func(p point) float64 { return float64(p.inFlight) }},
		{"healthy with it", "#2ca02c", func(p point) float64 { return float64(p.complete) }},
		{"failed", "#d62728", func(p point) float64 { return float64(p.failed) }},
		{"silent", "#9467bd", func(p point) float64 { return float64(p.sil) }},
	} {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, line.color)
		for j := 0; j < len(w.points); j += step {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(w.points[j].minute), y(line.value(w.points[j])))
		}
		p := w.points[len(w.points)-1]
		fmt.Fprintf(&b, `%.1f,%.1f"/><rect x="%d" y="%d" width="12" height="3" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			x(p.minute), y(line.value(p)), width-right+14, top+20*i+10, line.color, width-right+32, top+20*i+15, line.name)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}
