package accounts

import "time"

// Woken is what RunImports waits for beside its clocks.
func (s *Service) Woken() <-chan struct{} { return s.staged }

// SetSchemaSeen sets when a database last answered a health check.
func (s *Service) SetSchemaSeen(at time.Time) { s.schemaSeen.Store(at.UnixNano()) }
