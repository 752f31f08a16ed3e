package pipeline

// Waiting returns how many commands have not been sent.
func (p *Pipeline) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, b := range p.waiting {
		n += len(b.cmds)
	}
	return n
}
