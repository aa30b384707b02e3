package testserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// ManagementURL is the root of the management pages; the API is below it at /api.
func (r *RabbitMQ) ManagementURL() string {
	return fmt.Sprintf("http://127.0.0.1:%d", r.ports.management.port)
}

// API calls the management API as user guest. The path begins after /api and has its
// parts escaped. in, if not nil, is sent as JSON; out, if not nil, is filled from the reply.
func (r *RabbitMQ) API(ctx context.Context, method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return fmt.Errorf("rabbitmq api: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, r.ManagementURL()+"/api"+path, &body)
	if err != nil {
		return fmt.Errorf("rabbitmq api: %w", err)
	}
	request.SetBasicAuth("guest", "guest")
	request.Header.Set("Content-Type", "application/json")
	request.Close = true // a kept connection is a goroutine that a leak check would see
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("rabbitmq api: %w", err)
	}
	content, err := io.ReadAll(reply.Body)
	if err = errors.Join(err, reply.Body.Close()); err != nil {
		return fmt.Errorf("rabbitmq api: %s %s: %w", method, path, err)
	}
	if reply.StatusCode >= 300 {
		return fmt.Errorf("rabbitmq api: %s %s: %s: %s", method, path, reply.Status, bytes.TrimSpace(content))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(content, out); err != nil {
		return fmt.Errorf("rabbitmq api: %s %s: %w", method, path, err)
	}
	return nil
}

// apiPath joins parts to a path, each escaped.
func apiPath(parts ...string) string {
	var path strings.Builder
	for _, p := range parts {
		path.WriteString("/" + url.PathEscape(p))
	}
	return path.String()
}

// Version is what the node says of itself, such as "3.10.8".
func (r *RabbitMQ) Version(ctx context.Context) (string, error) {
	var overview struct {
		Version string `json:"rabbitmq_version"`
	}
	err := r.API(ctx, http.MethodGet, "/overview", nil, &overview)
	return overview.Version, err
}

// AddVHost makes a virtual host that guest may do all in.
func (r *RabbitMQ) AddVHost(ctx context.Context, name string) error {
	if err := r.API(ctx, http.MethodPut, apiPath("vhosts", name), struct{}{}, nil); err != nil {
		return err
	}
	return r.SetPermissions(ctx, name, "guest", ".*", ".*", ".*")
}

// DeleteVHost removes a virtual host with all it holds and closes its connections.
func (r *RabbitMQ) DeleteVHost(ctx context.Context, name string) error {
	return r.API(ctx, http.MethodDelete, apiPath("vhosts", name), nil, nil)
}

// AddUser makes a user without permissions, or sets the password of one. The tags, such as
// "administrator", may be empty.
func (r *RabbitMQ) AddUser(ctx context.Context, name, password, tags string) error {
	return r.API(ctx, http.MethodPut, apiPath("users", name), map[string]string{"password": password, "tags": tags}, nil)
}

// SetPermissions says what a user may configure, write and read in a virtual host: three
// regular expressions for names of exchanges and queues, where "" is nothing.
func (r *RabbitMQ) SetPermissions(ctx context.Context, vhost, user, configure, write, read string) error {
	rights := map[string]string{"configure": configure, "write": write, "read": read}
	return r.API(ctx, http.MethodPut, apiPath("permissions", vhost, user), rights, nil)
}

// Queue is what the management API says of a queue. Its counts are up to two seconds old;
// for an exact count declare the queue passively.
type Queue struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Durable  bool   `json:"durable"`
	Messages int    `json:"messages"`

	// Of a quorum queue: the node that leads it, and those of its members that are there.
	Leader string   `json:"leader"`
	Online []string `json:"online"`
}

// Queues lists the queues of a virtual host.
func (r *RabbitMQ) Queues(ctx context.Context, vhost string) ([]Queue, error) {
	var all []Queue
	err := r.API(ctx, http.MethodGet, apiPath("queues", vhost), nil, &all)
	return all, err
}

// DeleteQueue removes a queue and its messages.
func (r *RabbitMQ) DeleteQueue(ctx context.Context, vhost, name string) error {
	return r.API(ctx, http.MethodDelete, apiPath("queues", vhost, name), nil, nil)
}

// DeleteExchange removes an exchange and its bindings.
func (r *RabbitMQ) DeleteExchange(ctx context.Context, vhost, name string) error {
	return r.API(ctx, http.MethodDelete, apiPath("exchanges", vhost, name), nil, nil)
}

// Connection is what the management API says of a client's connection.
type Connection struct {
	Name       string         `json:"name"`
	User       string         `json:"user"`
	VHost      string         `json:"vhost"`
	State      string         `json:"state"`
	Properties map[string]any `json:"client_properties"`
}

// Connections lists the open connections of all virtual hosts. A new one appears within
// two seconds.
func (r *RabbitMQ) Connections(ctx context.Context) ([]Connection, error) {
	var all []Connection
	err := r.API(ctx, http.MethodGet, "/connections", nil, &all)
	return all, err
}

// CloseConnection closes a client's connection with a 320 (CONNECTION_FORCED).
func (r *RabbitMQ) CloseConnection(ctx context.Context, name string) error {
	return r.API(ctx, http.MethodDelete, apiPath("connections", name), nil, nil)
}
