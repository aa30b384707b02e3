package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pgamqp/pgamqp/internal/catalog"
	"github.com/pgamqp/pgamqp/publisher"
	"github.com/pgamqp/pgamqp/sql"
)

// examineHost logs in to one address of a broker, and looks whether the exchanges of routes take messages. The default
// exchange is looked at, too: which exchanges applications publish to is not known, and that is where one begins.
func examineHost(ctx context.Context, d *catalog.Diagnosis, id int32, h publisher.Host, routed []string) {
	area := fmt.Sprintf("broker %d", id)
	exchanges := slices.Clone(routed)
	if !slices.Contains(exchanges, "") {
		exchanges = append(exchanges, "")
	}
	obstacles, err := publisher.Check(ctx, h, exchanges)
	if err != nil {
		d.Add(catalog.LevelError, area, err.Error(), fixOfBroker(id, h, err))
		return
	}
	d.Add(catalog.LevelOK, area, fmt.Sprintf("%s takes %s into virtual host %q", h.Address(), userOf(h), h.VHost), "")
	for _, o := range obstacles {
		if o.Missing {
			d.Add(catalog.LevelError, area, fmt.Sprintf("a route publishes to exchange %q, which is not in virtual host %q: its messages become dead letters", o.Exchange, h.VHost),
				fmt.Sprintf("select amqp.exchange_declare(%d, %s, 'topic', passive => false, durable => true);", id, sql.Literal(o.Exchange)))
		}
		if o.Refused == "" {
			continue
		}
		name, level := fmt.Sprintf("exchange %q", o.Exchange), catalog.LevelError
		if o.Exchange == "" {
			name = "the default exchange"
			if !slices.Contains(routed, "") && len(obstacles) < len(exchanges) {
				level = catalog.LevelWarning // there are others that it may write to
			}
		}
		d.Add(level, area, fmt.Sprintf("%s may not write to %s in virtual host %q (%s): messages to it become dead letters", userOf(h), name, h.VHost, o.Refused),
			allRights(h)+"; or narrower patterns: what may be configured, written, read")
	}
}

// userOf names the user that we log in as; of a certificate only the broker knows it.
func userOf(h publisher.Host) string {
	if h.External {
		return "the user of the certificate"
	}
	return fmt.Sprintf("%q", h.Username)
}

// allRights is the command that lets a user do what declarations need, too: configure and read.
func allRights(h publisher.Host) string {
	user := shellWord(h.Username)
	if h.External {
		user = "USER"
	}
	return fmt.Sprintf(`rabbitmqctl set_permissions -p %s %s ".*" ".*" ".*"`, shellWord(h.VHost), user)
}

func fixOfBroker(id int32, h publisher.Host, err error) string {
	var refused *amqp.Error
	var alarm *publisher.AlarmError
	switch {
	case errors.As(err, &alarm):
		return "free memory or disk of RabbitMQ, or raise its limit; messages wait until then"
	case errors.As(err, &refused) && refused.Code == amqp.NotAllowed:
		return fmt.Sprintf("rabbitmqctl add_vhost %s; %s", shellWord(h.VHost), allRights(h))
	case publisher.Denied(err):
		return fmt.Sprintf("update amqp.broker set username = '...', password = '...' where broker_id = %d; or: rabbitmqctl change_password %s", id, shellWord(h.Username))
	}
	if h.Problem != "" {
		return "see the message; the daemon, and doctor with it, needs the same secrets_dir and variables"
	}
	return fmt.Sprintf("see whether RabbitMQ runs there and a firewall lets us through; the address is in amqp.broker, broker_id %d", id)
}

// shellWord quotes what a shell would take apart.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r == '/' || r == '.' || r == '_' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
