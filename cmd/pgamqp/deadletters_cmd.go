package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/metrics"
)

const deadLettersHelp = `Dead letters are messages that a broker did not take: the exchange is missing, no
queue is bound, they are too large. They stand in the table amqp.dead_letter with
the reason and everything that was to be sent. Once the reason is gone, send them
again; what has become worthless, remove. Forged ones are sent again only when they
are asked for by their ids or with --reason forged: then they are signed.

The same in SQL: amqp.dead_letter, amqp.redeliver(id), amqp.redeliver_all(...).`

const deadLettersExample = `  pgamqp dead-letters list --reason unroutable
  pgamqp dead-letters show 17
  pgamqp dead-letters redeliver 17 18
  pgamqp dead-letters redeliver --all --dry-run
  pgamqp dead-letters purge --broker 2 --older-than 720h`

const deadLettersListExample = `  pgamqp dead-letters list
  pgamqp dead-letters list --reason unroutable --older-than 24h
  pgamqp dead-letters list --limit 100 --after 1700
  pgamqp dead-letters list --json | jq '.[].id'`

const deadLettersShowExample = `  pgamqp dead-letters show 17
  pgamqp dead-letters show 17 --body > body`

const redeliverExample = `  pgamqp dead-letters redeliver 17 18
  pgamqp dead-letters redeliver --reason unroutable --broker 1 --limit 100
  pgamqp dead-letters redeliver --all --dry-run`

const purgeExample = `  pgamqp dead-letters purge 17 18
  pgamqp dead-letters purge --older-than 720h --dry-run
  pgamqp dead-letters purge --all --json`

func newDeadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "dead-letters",
		Short:   "List, show, send again or remove what brokers did not take",
		Long:    deadLettersHelp,
		Example: deadLettersExample,
		Args:    cobra.NoArgs,
	}
	cmd.AddCommand(
		newDeadLettersListCommand(),
		newDeadLettersShowCommand(),
		newDeadLettersChangeCommand("redeliver", "Send dead letters again, in the order in which they failed", redeliverExample,
			"sent again", "would be sent again", catalog.Redeliver, catalog.CountRedeliverable),
		newDeadLettersChangeCommand("purge", "Remove dead letters for good", purgeExample,
			"removed", "would be removed", catalog.PurgeDeadLetters, catalog.CountDeadLettersOf),
	)
	return cmd
}

// letterFlags are the flags that select dead letters.
type letterFlags struct {
	broker           int32
	reason, exchange string
	olderThan        time.Duration
}

func (l *letterFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int32Var(&l.broker, "broker", 0, "only those of the broker with this broker_id")
	f.StringVar(&l.reason, "reason", "", "only those with this `reason`: "+strings.Join(reasons(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasons(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
	f.StringVar(&l.exchange, "exchange", "", `only those to this exchange; "" is the default exchange`)
	f.DurationVar(&l.olderThan, "older-than", 0, "only those that failed last so long ago, for example 24h")
}

// reasons are all that a dead letter can have.
func reasons() []string {
	var all []string
	for _, r := range []metrics.DeadLetterReason{
		metrics.ReasonUnroutable, metrics.ReasonNotFound, metrics.ReasonAccessRefused, metrics.ReasonPreconditionFailed, metrics.ReasonTooLarge,
		metrics.ReasonNacked, metrics.ReasonUndecodable, metrics.ReasonInvalid, metrics.ReasonUnknownBroker, metrics.ReasonRefused, metrics.ReasonForged,
	} {
		all = append(all, string(r))
	}
	return all
}

// filter is what the flags select; narrowed tells whether that is not all.
func (l *letterFlags) filter(cmd *cobra.Command) (f catalog.DeadLetterFilter, narrowed bool, err error) {
	given := func(name string) bool {
		changed := cmd.Flags().Changed(name)
		narrowed = narrowed || changed
		return changed
	}
	if given("broker") {
		f.Broker = &l.broker
	}
	if given("reason") {
		f.Reason = &l.reason
	}
	if given("exchange") {
		f.Exchange = &l.exchange
	}
	if given("older-than") {
		f.OlderThan = l.olderThan
	}
	if l.olderThan < 0 {
		err = exitWith(exitUsage, fmt.Errorf("--older-than %s: give a time that is not negative, for example 24h", l.olderThan))
	}
	return f, narrowed, err
}

func newDeadLettersListCommand() *cobra.Command {
	var selects letterFlags
	var limit, after int64
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List dead letters, those that failed first at the top",
		Example: deadLettersListExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, _, err := selects.filter(cmd)
			if err != nil {
				return err
			}
			if limit < 1 {
				return exitWith(exitUsage, fmt.Errorf("--limit %d: give a number of at least 1", limit))
			}
			f.After, f.Limit = after, limit
			return withSettings(cmd, func(ctx context.Context, conn *pgx.Conn) error {
				letters, err := catalog.DeadLetters(ctx, conn, f)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), append([]catalog.StoredDeadLetter{}, letters...)) // none is a list, too
				}
				left := int64(0)
				if n := int64(len(letters)); n == limit {
					f.After, f.Limit = letters[n-1].ID, 0
					if left, err = catalog.CountDeadLettersOf(ctx, conn, f); err != nil {
						return err
					}
				}
				return listDeadLetters(cmd.OutOrStdout(), colorsFor(cmd.OutOrStdout()), letters, left)
			})
		},
	}
	selects.add(cmd)
	cmd.Flags().Int64Var(&limit, "limit", 50, "list at most so many")
	cmd.Flags().Int64Var(&after, "after", 0, "go on behind the one with this `id`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of a table")
	addSettings(cmd, "database_url")
	return cmd
}

func newDeadLettersShowCommand() *cobra.Command {
	var asJSON, bodyOnly bool
	cmd := &cobra.Command{
		Use:     "show id",
		Short:   "Show everything that is known of a dead letter",
		Example: deadLettersShowExample,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := parseIDs(args)
			if err != nil {
				return err
			}
			return withSettings(cmd, func(ctx context.Context, conn *pgx.Conn) error {
				letter, found, err := catalog.DeadLetterWithBody(ctx, conn, ids[0])
				switch {
				case err != nil:
					return err
				case !found:
					return fmt.Errorf("no dead letter has the id %d; see pgamqp dead-letters list", ids[0])
				case asJSON:
					return printJSON(cmd.OutOrStdout(), letter)
				case bodyOnly:
					_, err = cmd.OutOrStdout().Write(letter.Body)
					return err
				}
				return showDeadLetter(cmd.OutOrStdout(), &letter)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the body in base64")
	cmd.Flags().BoolVar(&bodyOnly, "body", false, "print the body and nothing else, byte by byte")
	cmd.MarkFlagsMutuallyExclusive("json", "body")
	addSettings(cmd, "database_url")
	return cmd
}

// newDeadLettersChangeCommand makes a command that does something to those that are selected by ids, by filters, or
// by --all: forgetting the selection must not be the largest one.
func newDeadLettersChangeCommand(name, short, example, done, would string,
	change, count func(context.Context, *pgx.Conn, catalog.DeadLetterFilter) (int64, error),
) *cobra.Command {
	var selects letterFlags
	var all, dryRun, asJSON bool
	var limit int64
	cmd := &cobra.Command{
		Use:     name + " [id]...",
		Short:   short,
		Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, narrowed, err := selects.filter(cmd)
			if err == nil {
				f.IDs, err = parseIDs(args)
			}
			switch {
			case err != nil:
				return err
			case len(args) == 0 && !narrowed && !all:
				return exitWith(exitUsage, errors.New("which ones? Give ids, filters such as --reason, or --all"))
			case all && (len(args) > 0 || narrowed):
				return exitWith(exitUsage, errors.New("--all is all of them: give it alone, or leave it out"))
			case limit < 0:
				return exitWith(exitUsage, fmt.Errorf("--limit %d: give a number that is not negative; 0 is no limit", limit))
			}
			f.Limit = limit
			act, told := change, done
			if dryRun {
				act, told = count, would
			}
			return withSettings(cmd, func(ctx context.Context, conn *pgx.Conn) error {
				n, err := act(ctx, conn, f)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(cmd.OutOrStdout(), lettersChanged{n, dryRun})
				} else {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", counted(n, "dead letter"), told)
				}
				if err != nil {
					return err
				}
				if missing := int64(len(f.IDs)) - n; missing > 0 && limit == 0 {
					return fmt.Errorf("%d of the ids that were given are not there, or not selected; see pgamqp dead-letters list", missing)
				}
				return nil
			})
		},
	}
	selects.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters")
	cmd.Flags().Int64Var(&limit, "limit", 0, "at most so `many`, those that failed first; 0 is no limit")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell how many it would be")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: how many, and whether it was a dry run")
	addSettings(cmd, "database_url")
	return cmd
}

// lettersChanged is the JSON of redeliver and purge.
type lettersChanged struct {
	Count  int64 `json:"count"`
	DryRun bool  `json:"dry_run"`
}

// parseIDs reads ids, each once; nil for none.
func parseIDs(args []string) ([]int64, error) {
	var ids []int64
	seen := make(map[int64]bool)
	for _, a := range args {
		id, err := strconv.ParseInt(a, 10, 64)
		if err != nil || id < 1 {
			return nil, exitWith(exitUsage, fmt.Errorf("%q is not the id of a dead letter, which is a number; see pgamqp dead-letters list", a))
		}
		if !seen[id] {
			ids, seen[id] = append(ids, id), true
		}
	}
	return ids, nil
}
