package testserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// dial opens a channel in confirm mode.
func dial(t *testing.T, r *RabbitMQ, vhost string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(r.URL(vhost))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

// send publishes one persistent message to a queue and waits for the confirm.
func send(ctx context.Context, ch *amqp.Channel, queue string) error {
	message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("x")}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, message)
	if err != nil {
		return err
	}
	acked, err := confirm.WaitContext(ctx)
	if err == nil && !acked {
		err = errors.New("refused")
	}
	return err
}

func depth(t *testing.T, r *RabbitMQ, vhost, queue string) int {
	t.Helper()
	q, err := dial(t, r, vhost).QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages
}

func TestRabbitMQLife(t *testing.T) {
	t.Parallel()
	certificate, err := SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRabbitMQ(RabbitMQOptions{
		Plugins: []string{"rabbitmq_prometheus"},
		Config:  []string{"channel_max = 77", "prometheus.tcp.ip = 127.0.0.1", "prometheus.tcp.port = " + freePort(t)},
		TLS:     certificate,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	}()
	// Someone takes a port between the pick and the start.
	intruder, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.epmd.lease.port))
	if err != nil {
		t.Fatal(err)
	}
	err = r.startAnywhere()
	if err := errors.Join(err, intruder.Close()); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if version, err := r.Version(ctx); err != nil || !strings.HasPrefix(version, fmt.Sprintf("%d.", r.programs.major())) {
		t.Errorf("version %q runs, out of an installation of version %d: %v", version, r.programs.major(), err)
	}

	const vhost = "odd/näme"
	if err := r.AddVHost(ctx, vhost); err != nil {
		t.Fatal(err)
	}
	ch := dial(t, r, vhost)
	if _, err := ch.QueueDeclare("q", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := send(ctx, ch, "q"); err != nil {
		t.Fatal(err)
	}
	t.Run("users", func(t *testing.T) { checkUsers(ctx, t, r, vhost) })
	t.Run("management", func(t *testing.T) { checkManagement(ctx, t, r, vhost) })
	t.Run("options", func(t *testing.T) { checkOptions(t, r, certificate.Certificate) })
	t.Run("ctl", func(t *testing.T) {
		if out, err := r.Ctl(ctx, "list_queues", "-p", vhost, "name", "messages"); err != nil || out != "name\tmessages\nq\t1\n" {
			t.Errorf("list_queues says %q, %v", out, err)
		}
	})
	t.Run("pause", func(t *testing.T) {
		if err := r.Pause(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if err := send(short, ch, "q"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a paused node confirmed: %v", err)
		}
		if err := r.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := send(ctx, ch, "q"); err != nil {
			t.Error(err)
		}
	})
	t.Run("restart", func(t *testing.T) { checkRestarts(t, r, vhost) })
}

func freePort(t *testing.T) string {
	t.Helper()
	lease, err := leasePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.release)
	return strconv.Itoa(lease.port)
}

func checkOptions(t *testing.T, r *RabbitMQ, certificate []byte) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	conn, err := amqp.DialTLS(fmt.Sprintf("amqps://guest:guest@127.0.0.1:%d/", r.TLSPort()), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.Config.ChannelMax; got != 77 {
		t.Errorf("channel_max is %d", got)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func checkUsers(ctx context.Context, t *testing.T, r *RabbitMQ, vhost string) {
	if err := errors.Join(r.AddUser(ctx, "bob", "secret", ""), r.SetPermissions(ctx, vhost, "bob", "", "^$", "")); err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(fmt.Sprintf("amqp://bob:secret@%s/odd%%2Fn%%C3%%A4me", r.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	var refused *amqp.Error
	if _, err := ch.QueueDeclare("mine", true, false, false, false, nil); !errors.As(err, &refused) || refused.Code != amqp.AccessRefused {
		t.Errorf("bob may declare a queue: %v", err)
	}
}

func checkManagement(ctx context.Context, t *testing.T, r *RabbitMQ, vhost string) {
	var queues []Queue
	var connections []Connection
	err := await(ctx, nil, 100*time.Millisecond, func() bool {
		var err1, err2 error
		queues, err1 = r.Queues(ctx, vhost)
		connections, err2 = r.Connections(ctx)
		return err1 == nil && err2 == nil && len(queues) == 1 && queues[0].Messages == 1 && len(connections) > 0
	})
	if err != nil || queues[0].Name != "q" || connections[0].VHost != vhost {
		t.Errorf("queues %+v, connections %+v: %v", queues, connections, err)
	}
	ch := dial(t, r, vhost)
	if err := ch.ExchangeDeclare("x", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteExchange(ctx, vhost, "x"); err != nil {
		t.Error(err)
	}
	if err := r.DeleteExchange(ctx, vhost, "x"); err == nil {
		t.Error("deleted an exchange twice")
	}
}

func checkRestarts(t *testing.T, r *RabbitMQ, vhost string) {
	port, seen := r.Port(), []int{r.PID()}
	for _, stop := range []func() error{r.Stop, r.Kill} {
		if err := errors.Join(stop(), stop()); err != nil {
			t.Fatal(err)
		}
		if r.PID() != 0 {
			t.Errorf("a stopped node has pid %d", r.PID())
		}
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		if r.Port() != port || slices.Contains(seen, r.PID()) {
			t.Errorf("port %d, pid %d after a restart; was %d, %v", r.Port(), r.PID(), port, seen)
		}
		seen = append(seen, r.PID())
		if got := depth(t, r, vhost, "q"); got < 2 {
			t.Errorf("%d messages are left", got)
		}
	}
}
