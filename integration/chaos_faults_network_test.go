package integration

import "time"

// networkFaults break the paths from the daemon to PostgreSQL and to the nodes.
func networkFaults() []fault {
	var all []fault
	for _, path := range []struct {
		touches string
		proxy   func(*chaos) *proxy
	}{
		{thePath, func(c *chaos) *proxy { return c.path }},
		{thePathTo(0), func(c *chaos) *proxy { return c.paths[0] }},
		{thePathTo(1), func(c *chaos) *proxy { return c.paths[1] }},
	} {
		broken := func(name string, weight int, run func(f *breakage, p *proxy)) {
			all = append(all, fault{path.touches + " " + name, weight, []string{path.touches}, func(f *breakage) error {
				run(f, path.proxy(f.chaos))
				return nil
			}})
		}
		broken("swallows", 1, func(f *breakage, p *proxy) {
			p.freeze()
			f.hold(100*time.Millisecond, 2*walSenderTimeout)
			p.thaw()
		})
		broken("swallows, then resets", 1, func(f *breakage, p *proxy) {
			p.freeze()
			f.hold(100*time.Millisecond, walSenderTimeout)
			p.reset()
			p.thaw()
		})
		broken("resets", 2, func(f *breakage, p *proxy) { p.reset() })
		broken("is gone", 1, func(f *breakage, p *proxy) {
			p.refuse()
			f.hold(100*time.Millisecond, 5*time.Second)
			p.accept()
		})
		broken("is cut in the middle of a frame", 2, func(f *breakage, p *proxy) {
			for range 1 + f.random.IntN(5) {
				p.cutAfter(f.random.IntN(1 << f.random.IntN(17)))
				f.hold(0, time.Second)
			}
			p.cutAfter(-1)
		})
		broken("is slow", 2, func(f *breakage, p *proxy) {
			p.delay(time.Duration(1+f.random.IntN(100)) * time.Millisecond)
			f.hold(500*time.Millisecond, 4*time.Second)
			p.delay(0)
		})
	}
	return all
}
