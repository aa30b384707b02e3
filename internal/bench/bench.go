package bench

import (
	"context"
	"encoding/json"
	"errors"
)

// Run measures what o asks for and writes it to o.Out, o.JSON and o.Plot. What was measured
// before an error is written all the same.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	w, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	tables, err := w.measure(ctx, w.sections())
	r := &Report{Version: o.Version, Machine: w.machine, Options: o.list(), Sections: tables, Notes: w.notes}
	return errors.Join(err, r.write(&o))
}

func (r *Report) write(o *Options) error {
	var errs []error
	if o.Out != nil {
		print := r.Print
		if o.Markdown {
			print = r.Markdown
		}
		errs = append(errs, print(o.Out))
	}
	if o.JSON != nil {
		e := json.NewEncoder(o.JSON)
		e.SetIndent("", "  ")
		errs = append(errs, e.Encode(r))
	}
	if o.Plot != nil {
		errs = append(errs, writeSVG(o.Plot, r.charts()))
	}
	return errors.Join(errs...)
}
