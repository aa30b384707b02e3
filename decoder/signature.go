package decoder

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/jackc/pglogrepl"
)

// signedVersion is the version of an envelope that has a signature of signatureSize bytes behind
// its body. It is signed as it stands, version included; see sql/signature.sql.
const (
	signedVersion = 2
	signatureSize = sha256.Size
)

// Trust says which messages are taken for written by the SQL functions.
type Trust struct {
	// Keys of HMAC-SHA256 are those that a signature may be made with.
	Keys [][]byte
	// Required means that what is not signed and written behind From is forged.
	Required bool
	From     pglogrepl.LSN
}

// What Open says of a message.
var (
	ErrNotSigned = errors.New("it is not signed, and has to be")
	ErrSignature = errors.New("its signature is wrong: it was not written by the SQL functions, or was written in another transaction")
)

// Open checks a message of our prefix, and takes its signature off: what it leaves in Content is an envelope of
// version 1. On an error Content is as it was. Where there is no key and signatures are not required, nobody has asked
// for any, and none counts: Content stays as it was if it could not be read without its signature either. Where they are
// required, none is right without a key. A message outside of any transaction that was copied is not told from the first.
func (t *Trust) Open(m *Message) error {
	if len(m.Content) == 0 || m.Content[0] != signedVersion {
		if t.Required && m.LSN > t.From {
			return ErrNotSigned
		}
		return nil
	}
	n := max(len(m.Content)-signatureSize, 0)
	if t.checks() && (n < fixedHead || !t.signed(m, m.Content[:n], m.Content[n:])) {
		return ErrSignature
	}
	m.Content[0] = envelopeVersion
	if !t.checks() {
		if _, err := ParseEnvelope(m.Content[:n]); err != nil {
			m.Content[0] = signedVersion // what is behind it need be no signature
			return nil
		}
	}
	m.Content = m.Content[:n]
	return nil
}

// checks tells whether signatures count. Keys that are lost are no reason to trust everybody.
func (t *Trust) checks() bool { return t.Required || len(t.Keys) > 0 }

// TellsOfKey tells whether a message may be the one that amqp.sign_messages writes when it has made a key: of that kind,
// with a signature, in a transaction.
func TellsOfKey(m *Message) bool {
	return m.Transactional && len(m.Content) > 1 && m.Content[0] == signedVersion && Kind(m.Content[1]) == KindBrokersChanged
}

func (t *Trust) signed(m *Message, content, signature []byte) bool {
	var xid [8]byte
	if m.Transactional {
		binary.BigEndian.PutUint32(xid[4:], m.XID)
	}
	for _, key := range t.Keys {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write(content) // a hash takes everything
		_, _ = mac.Write(xid[:])
		if hmac.Equal(mac.Sum(nil), signature) {
			return true
		}
	}
	return false
}
