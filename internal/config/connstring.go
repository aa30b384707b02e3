package config

import (
	"log/slog"
	"net/url"
	"strings"
)

// ConnString says how to reach PostgreSQL, as a URL or as keywords and values. It prints, logs and marshals with its
// passwords masked; convert it to a string to use it.
type ConnString string

// mask stands for a secret.
const mask = "xxxxx"

// String returns the connection string without its secrets.
func (c ConnString) String() string {
	if isURL(string(c)) {
		return maskURL(string(c))
	}
	return maskKeywords(string(c))
}

// HasSecret tells whether it holds a password.
func (c ConnString) HasSecret() bool { return c.String() != string(c) }

// GoString does the same for the verb %#v.
func (c ConnString) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer].
func (c ConnString) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], so that JSON is masked too.
func (c ConnString) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func isURL(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

// blanks are what separates keywords, as in libpq.
const blanks = " \t\n\v\f\r"

func secretKey(key string) bool { return key == "password" || key == "sslpassword" }

// maskURL works on the text, because a URL that is malformed, often by its very password, must not show it either.
// It rather masks too much: everything from the first colon to the last @ that could belong to the user's part.
func maskURL(s string) string {
	scheme, rest, _ := strings.Cut(s, "://")
	authority, after := splitAny(rest, "/?#")
	if !strings.Contains(authority, "@") {
		// Either there is no user, or a / ? # in the password has cut it off.
		authority, after = rest, ""
		if at := strings.LastIndexByte(rest, '@'); at < 0 {
			authority, after = splitAny(rest, "/?#")
		}
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, _, hasPassword := strings.Cut(authority[:at], ":")
		if hasPassword {
			user += ":" + mask
		}
		authority = user + authority[at:]
	}
	path, query, hasQuery := strings.Cut(after, "?")
	if !hasQuery {
		return scheme + "://" + authority + after
	}
	params := strings.Split(query, "&")
	for i, p := range params {
		key, _, _ := strings.Cut(p, "=")
		if plain, err := url.QueryUnescape(key); err != nil || secretKey(plain) {
			params[i] = key + "=" + mask
		}
	}
	return scheme + "://" + authority + path + "?" + strings.Join(params, "&")
}

// splitAny cuts s before the first of the given characters.
func splitAny(s, chars string) (before, from string) {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// maskKeywords reads "key = value" pairs as libpq does: blanks around the equals sign, values in single quotes,
// backslash escapes. What it cannot read it does not show.
func maskKeywords(s string) string {
	var shown []string
	for s = strings.Trim(s, blanks); s != ""; s = strings.Trim(s, blanks) {
		key, rest, ok := strings.Cut(s, "=")
		key = strings.Trim(key, blanks)
		if !ok || key == "" || strings.ContainsAny(key, blanks+"'\\") {
			return strings.Join(append(shown, mask), " ")
		}
		length, ok := valueLength(strings.TrimLeft(rest, blanks))
		if !ok {
			return strings.Join(append(shown, key+"="+mask), " ")
		}
		rest = strings.TrimLeft(rest, blanks)
		if secretKey(key) {
			shown = append(shown, key+"="+mask)
		} else {
			shown = append(shown, key+"="+rest[:length])
		}
		s = rest[length:]
	}
	return strings.Join(shown, " ")
}

// valueLength returns how many bytes of s the value takes that s begins with; false if a quote is not closed.
func valueLength(s string) (int, bool) {
	quoted := strings.HasPrefix(s, "'")
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case quoted && i > 0 && s[i] == '\'':
			return i + 1, true
		case !quoted && strings.IndexByte(blanks, s[i]) >= 0:
			return i, true
		}
	}
	return len(s), !quoted
}
