package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	// slowRead is the least time after which a read gives the primary up (its connection's limit).
	slowRead = time.Second
	// aftermath is for what a process had begun before it was stopped.
	aftermath = 500 * time.Millisecond
)

// checkLimit bounds the search of one history; bounded and full of versions, it takes milliseconds.
const checkLimit = 30 * time.Second

// violation is one thing that must not be.
type violation struct {
	What string
	name string // of the file with the picture, if there is one
	info porcupine.LinearizationInfo
	of   porcupine.Model
}

// judge explains every event by the faults around it, and returns what they do not explain.
func (w *world) judge(events []*event, after *[users]user, names *[pairs]string) []violation {
	var found []violation
	for _, e := range events {
		if f, slow := e.slow(); slow {
			w.note(f)
		}
	}
	for _, e := range events {
		if wrong := e.check(w, w.explain(e)); wrong != "" {
			found = append(found, violation{What: fmt.Sprintf("%s: %s (%s)", e.RequestID, wrong, e)})
		}
	}
	ofUser, ofGroup := project(w, events)
	if after != nil {
		f, _ := w.promotion()
		e := &event{Client: clients, Kind: promotion, Call: f.From, Return: f.To}
		for i := range ofUser {
			ofUser[i] = append(ofUser[i], view{event: e, role: failover, seen: after[i]})
		}
		for i := range ofGroup {
			ofGroup[i] = append(ofGroup[i], view{event: e, role: failover, name: names[i]})
		}
	}
	for i, views := range ofUser {
		found = append(found, linearizable(fmt.Sprintf("user-%d", i), userModel(w.initial[i]), views)...)
	}
	for i, views := range ofGroup {
		found = append(found, linearizable(fmt.Sprintf("group-%d", i), groupModel(w.names[i]), views)...)
	}
	return found
}

// slow reports whether an answer shows that a deadline passed without a fault of ours: the machine is
// too busy. Where that is so, the same is true as of a process that was stopped.
func (e *event) slow() (fault, bool) {
	showsIt := e.Status == http.StatusServiceUnavailable || e.isRead() && e.Source == "replica" ||
		e.Status == http.StatusPreconditionFailed && !e.Tagged
	return fault{Kind: slowMachine, Server: e.Server, From: e.Call, To: e.Return}, showsIt && e.Return-e.Call >= slowRead
}

// explain sets what the faults let a read miss and how long they may hide a write, and reports
// whether they excuse an event that got no answer.
func (w *world) explain(e *event) (excused bool) {
	bypass := e.Cache == "bypass"
	switch {
	case !e.isRead(), e.Kind == getByID && bypass && e.Source == "primary":
		e.Freshness = strict
	case bypass && e.Source == "replica":
		e.Freshness = lagging
	default:
		e.Freshness = cached
	}
	e.Hidden = e.Return
	if e.unknown() || e.Return-e.Call >= relayBound {
		// Nobody acknowledged it; or its process could not reach Redis, waited for a second for another
		// process's relay, and acknowledged it all the same. If that took less, the relay had come.
		e.Hidden += relayBound
	}
	for _, f := range w.faults {
		switch f.Kind {
		case killPrimary:
			if f.concerns(e, lostVisible) {
				excused = true
				if e.isRead() {
					e.Freshness = uncertain
				}
			}
		case stopProcess, slowMachine:
			if f.concerns(e, aftermath) {
				// Its deadlines pass while it sleeps: the primary looks dead to it, and the replica
				// answers without proof, as when the primary is. Others may have joined its loads.
				excused = true
				if e.isRead() && e.Source == "replica" {
					e.Freshness = uncertain
				}
			}
		case killServer, renewServer:
			excused = excused || e.Status == 0 && f.concerns(e, 0)
		}
	}
	return excused
}

// project tells each register what the events mean for it. A request that concerns two users is two
// statements: both must hold, but nothing is said of them together.
func project(w *world, events []*event) (ofUser [users][]view, ofGroup [pairs][]view) {
	see := func(e *event, d *document) {
		u := w.userOf(d.ID)
		ofUser[u] = append(ofUser[u], view{event: e, role: observe, seen: d.state()})
	}
	for _, e := range events {
		if e.refused() || e.Fault != "" || e.Doc != nil && w.userOf(e.Doc.ID)/2 != e.User/2 {
			continue
		}
		own, other := &ofUser[e.User], &ofUser[e.User^1]
		switch e.Kind {
		case getGroups:
		case getByPhone:
			if e.Doc == nil {
				*own = append(*own, view{event: e, role: lacks})
				*other = append(*other, view{event: e, role: lacks})
				break
			}
			see(e, e.Doc)
			u := w.userOf(e.Doc.ID) ^ 1
			ofUser[u] = append(ofUser[u], view{event: e, role: lacks})
		case getByID, getByEmail, getByLogin:
			if e.Doc != nil {
				see(e, e.Doc)
			} else {
				*own = append(*own, view{event: e, role: lacks})
			}
		case rename:
			ofGroup[e.User/2] = append(ofGroup[e.User/2], view{event: e, role: act})
		default:
			*own = append(*own, view{event: e, role: act})
			if e.Kind == addPhone && e.Status == 201 {
				*other = append(*other, view{event: e, role: lacks})
			}
			if e.Problem == identifierTaken {
				*other = append(*other, view{event: e, role: holds})
			}
		}
		name := e.GroupName
		if e.Doc != nil && len(e.Doc.Groups) == 1 {
			name = e.Doc.Groups[0].Name
		}
		if g := &ofGroup[e.User/2]; name != "" && len(*g) < maxOperations {
			*g = append(*g, view{event: e, role: observe, name: name})
		}
	}
	return ofUser, ofGroup
}

// linearizable asks porcupine about one register.
func linearizable(name string, model porcupine.Model, views []view) []violation {
	operations := make([]porcupine.Operation, len(views))
	for i, v := range views {
		operations[i] = porcupine.Operation{
			ClientId: v.Client, Input: v, Call: int64(v.Call), Return: int64(v.Return), Metadata: v.RequestID,
		}
		if v.role == act && v.unknown() {
			operations[i].Return = int64(never)
		}
	}
	switch porcupine.CheckOperationsTimeout(model, operations, checkLimit) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return []violation{{What: fmt.Sprintf("%s: no verdict on %d operations in %s", name, len(views), checkLimit)}}
	}
	_, info := porcupine.CheckOperationsVerbose(model, operations, checkLimit)
	return []violation{{What: name + " is not linearizable", name: name, info: info, of: model}}
}

// keep writes what is needed to understand a failed round, and returns where.
func (w *world) keep(seed uint64, events []*event, found []violation) (string, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("accounts-history-%d-", seed))
	if err != nil {
		return "", err
	}
	slices.SortFunc(events, func(a, b *event) int { return int(a.Call - b.Call) })
	text, err := json.MarshalIndent(map[string]any{
		"seed": seed, "users": w.ids, "initial": w.initial, "faults": w.faults, "violations": found, "events": events,
	}, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "history.json"), text, 0o600)
	}
	var notes []porcupine.Annotation
	for _, f := range w.faults {
		notes = append(notes, porcupine.Annotation{
			Tag: "faults", Start: int64(f.From), End: int64(f.To),
			Description: fmt.Sprintf("%s (server %d)", f.Kind, f.Server),
		})
	}
	for _, v := range found {
		if v.name == "" {
			continue
		}
		v.info.AddAnnotations(notes)
		err = errors.Join(err, porcupine.VisualizePath(v.of, v.info, filepath.Join(dir, v.name+".html")))
	}
	for _, s := range w.servers {
		if log, readErr := os.ReadFile(s.log()); readErr == nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("server-%d.log", s.number)), log, 0o600))
		}
	}
	return dir, err
}
