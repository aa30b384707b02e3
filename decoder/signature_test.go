package decoder_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/pgamqp/pgamqp/decoder"
)

const plainEnvelope = "\x01p\x00\x00\x00\x01\x00\x00\x00\x00body"

// signed is what the SQL functions write, made by the library's HMAC.
func signed(key string, xid uint32) []byte {
	content := []byte("\x02" + plainEnvelope[1:])
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write(binary.BigEndian.AppendUint64(bytes.Clone(content), uint64(xid)))
	return mac.Sum(content)
}

func TestOpenTakesOffARightSignature(t *testing.T) {
	changed := signed("a", 7)
	changed[len(changed)-40] ^= 1
	required := decoder.Trust{Keys: [][]byte{[]byte("b"), []byte("a")}, Required: true, From: 100}
	for name, c := range map[string]struct {
		trust   decoder.Trust
		message decoder.Message
		want    error
	}{
		"right":                       {required, decoder.Message{Content: signed("a", 7), Transactional: true, XID: 7, LSN: 200}, nil},
		"with the newer key":          {required, decoder.Message{Content: signed("b", 7), Transactional: true, XID: 7, LSN: 200}, nil},
		"outside of a transaction":    {required, decoder.Message{Content: signed("a", 0), LSN: 200}, nil},
		"of another transaction":      {required, decoder.Message{Content: signed("a", 7), Transactional: true, XID: 8, LSN: 200}, decoder.ErrSignature},
		"written again, autonomously": {required, decoder.Message{Content: signed("a", 7), LSN: 200}, decoder.ErrSignature},
		"with another key":            {required, decoder.Message{Content: signed("c", 7), Transactional: true, XID: 7, LSN: 200}, decoder.ErrSignature},
		"changed":                     {required, decoder.Message{Content: changed, Transactional: true, XID: 7, LSN: 200}, decoder.ErrSignature},
		"cut off":                     {required, decoder.Message{Content: signed("a", 7)[:20], Transactional: true, XID: 7, LSN: 200}, decoder.ErrSignature},
		"none":                        {required, decoder.Message{Content: []byte(plainEnvelope), LSN: 101}, decoder.ErrNotSigned},
		"empty":                       {required, decoder.Message{LSN: 101}, decoder.ErrNotSigned},
		"none, from before":           {required, decoder.Message{Content: []byte(plainEnvelope), LSN: 100}, nil},
		"wrong, from before":          {required, decoder.Message{Content: signed("c", 7), LSN: 100}, decoder.ErrSignature},
		"none, and nobody asks":       {decoder.Trust{Keys: required.Keys}, decoder.Message{Content: []byte(plainEnvelope), LSN: 200}, nil},
		"wrong, and nobody asks":      {decoder.Trust{Keys: required.Keys}, decoder.Message{Content: signed("c", 0), LSN: 200}, decoder.ErrSignature},
		"some, and there is no key":   {decoder.Trust{}, decoder.Message{Content: signed("c", 0), LSN: 200}, nil},
		"no key is left":              {decoder.Trust{Required: true, From: 100}, decoder.Message{Content: signed("c", 0), LSN: 200}, decoder.ErrSignature},
		"no key is left, from before": {decoder.Trust{Required: true, From: 100}, decoder.Message{Content: signed("c", 0), LSN: 50}, decoder.ErrSignature},
		"no key is left, cut off":     {decoder.Trust{Required: true, From: 100}, decoder.Message{Content: []byte("\x02p"), LSN: 200}, decoder.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(c.message.Content)
			err := c.trust.Open(&c.message)
			if !errors.Is(err, c.want) || err != nil && c.want == nil {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			switch {
			case err != nil && !bytes.Equal(c.message.Content, before):
				t.Errorf("the content is %q", c.message.Content)
			case err == nil && string(c.message.Content) != plainEnvelope:
				t.Errorf("the content is %q", c.message.Content)
			}
		})
	}
}

func TestOpenLeavesWhatCannotBeRead(t *testing.T) {
	for name, content := range map[string]string{
		"too short":                   "\x02p",
		"no end of fields":            "\x02p\x00\x00\x00\x01" + strings.Repeat("x", 67),
		"of a kind that is not known": "\x02?" + plainEnvelope[2:] + strings.Repeat("s", sha256.Size),
	} {
		m := decoder.Message{Content: []byte(content), LSN: 200}
		if err := new(decoder.Trust).Open(&m); err != nil || string(m.Content) != content {
			t.Errorf("%s: %v, %q", name, err, m.Content)
		}
		if _, err := decoder.ParseEnvelope(m.Content); err == nil {
			t.Errorf("%s: and it could be read", name)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(signed("a", 7), uint32(7), true)
	f.Add([]byte(plainEnvelope), uint32(0), false)
	f.Add([]byte{2}, uint32(0), false)
	trust := decoder.Trust{Keys: [][]byte{[]byte("a")}, Required: true}
	f.Fuzz(func(t *testing.T, content []byte, xid uint32, transactional bool) {
		m := decoder.Message{Content: bytes.Clone(content), XID: xid, Transactional: transactional, LSN: 1}
		if err := trust.Open(&m); err == nil && !bytes.Equal(content, signed("a", xid)) && !bytes.Equal(content[len(content)-32:], hmacOf("a", content, xid, transactional)) {
			t.Errorf("%x is taken for ours", content)
		}
	})
}

func hmacOf(key string, content []byte, xid uint32, transactional bool) []byte {
	if !transactional {
		xid = 0
	}
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write(binary.BigEndian.AppendUint64(bytes.Clone(content[:len(content)-32]), uint64(xid)))
	return mac.Sum(nil)
}
