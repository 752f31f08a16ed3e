package accounts

// Woken is what RunImports waits for beside its clocks.
func (s *Service) Woken() <-chan struct{} { return s.staged }
