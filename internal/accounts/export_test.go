package accounts

import "time"

// Woken is what RunImports waits for beside its clocks.
func (s *Service) Woken() <-chan struct{} { return s.staged }

// RememberSchema sets how long a server that had every function is not asked again.
func (s *Service) RememberSchema(life time.Duration) {
	s.schema.replica.life, s.schema.primary.life = life, life
}

// SetSchemaSeen sets when a database last had everything.
func (s *Service) SetSchemaSeen(at time.Time) { s.schema.seen.Store(at.UnixNano()) }
