package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"unicode/utf8"
)

// goldenEnvelopes are what the SQL functions write, as the decoder's tests know it. Redelivered ones are left out: what claims the
// identity of another is counted as one more attempt of that.
func goldenEnvelopes(t *testing.T) (all [][]byte) {
	t.Helper()
	text, err := os.ReadFile("../decoder/testdata/envelopes.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Content string            `json:"content_hex"`
		Fields  map[string]string `json:"fields"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	for _, v := range vectors {
		content, err := hex.DecodeString(v.Content)
		if err != nil {
			t.Fatal(err)
		}
		if v.Fields["o"] == "" {
			all = append(all, content)
		}
	}
	return all
}

// hostile makes an envelope with which somebody could try to stop the daemon: random bytes, or a good one that was damaged.
// Many of the damaged ones are still addressed to broker 1, so that they come to it.
func hostile(random *rand.Rand, golden [][]byte) []byte {
	if random.IntN(8) == 0 {
		b := make([]byte, random.IntN(200))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	b := bytes.Clone(golden[random.IntN(len(golden))])
	if random.IntN(2) == 0 {
		binary.BigEndian.PutUint32(b[2:], 1)
	}
	for range 1 + random.IntN(3) {
		if len(b) == 0 {
			break
		}
		at := random.IntN(len(b))
		to := min(len(b), at+1+random.IntN(16))
		switch random.IntN(5) {
		case 0:
			b[at] ^= 1 << random.IntN(8)
		case 1:
			b[at] = byte(random.Uint32())
		case 2:
			b = slices.Delete(b, at, to)
		case 3:
			b = slices.Insert(b, at, bytes.Clone(b[at:to])...)
		case 4:
			b = b[:at]
		}
	}
	if len(b) > 0 && random.IntN(8) == 0 { // as if it were signed
		b[0] = 2
		for range sha256.Size {
			b = append(b, byte(random.Uint32()))
		}
	}
	return b
}

// withoutOrigin is the content of a dead letter without the field that it has got there.
func withoutOrigin(content []byte, origin string) []byte {
	const head = 6
	field := binary.BigEndian.AppendUint32(nil, 'o'<<24|uint32(len(origin)))
	field = append(field, origin...)
	if len(content) < head || !bytes.HasPrefix(content[head:], field) {
		return content
	}
	return append(bytes.Clone(content[:head]), content[head+len(field):]...)
}

// A superuser can write any bytes. None ends or stops the daemon, changes the order of others or gets lost: each is a dead letter
// that holds it, or was an envelope that the daemon understood.
func TestHostileEnvelopesAmongGoodMessagesStopNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.queue(1, "good") // which no envelope names
	d := w.start("--nack-retry-timeout", "1s")
	golden, random := goldenEnvelopes(t), newSeed(t)
	const count = 200
	sent, committed := make(map[string][]byte), make([]string, 0, count)
	conn := w.connect()
	for i := range count {
		content := hostile(random, golden)
		if i == 0 {
			content = []byte{} // nothing at all
		}
		transactional := random.IntN(2) == 0
		var lsn string
		if err := conn.QueryRow(withDeadline(t, sqlLimit), `select pg_logical_emit_message($1, 'amqp', $2::bytea)::text`, transactional, content).Scan(&lsn); err != nil {
			t.Fatal(err)
		}
		sent[lsn] = content
		committed = append(committed, fmt.Sprintf("good %d", i))
		run(t, conn, `select amqp.publish(1, '', 'good', $1)`, committed[i])
	}
	compare(committed, w.received(1, "good")).wantExact(t)
	if !d.running() {
		t.Error("the daemon has ended")
	}

	rows, err := w.connect().Query(withDeadline(t, sqlLimit), `select lsn::text, origin, reason, head || body from amqp.dead_letter`)
	if err != nil {
		t.Fatal(err)
	}
	reasons := make(map[string]int)
	for rows.Next() {
		var lsn, origin, reason string
		var content []byte
		if err := rows.Scan(&lsn, &origin, &reason, &content); err != nil {
			t.Fatal(err)
		}
		reasons[reason]++
		want, known := sent[lsn]
		got := withoutOrigin(content, origin)
		if read := withoutSignature(want); read != nil {
			want = read
		}
		if !known || !bytes.Equal(got, want) {
			t.Errorf("%s at %s, of\n%x\nholds\n%x", reason, lsn, want, got)
		}
		delete(sent, lsn)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	t.Logf("dead letters by reason: %v; %d were understood", reasons, len(sent))
	for lsn, content := range sent {
		if !isEnvelope(content) && withoutSignature(content) == nil {
			t.Errorf("no dead letter for what was written at %s: %x", lsn, content)
		}
	}
	if reasons["undecodable"] < count/10 {
		t.Errorf("only %d of %d were undecodable", reasons["undecodable"], count)
	}

	// All of it can be sent again, and stops nothing then either.
	var before, again int
	if err := conn.QueryRow(withDeadline(t, sqlLimit), `select count(*), amqp.redeliver_all() from amqp.dead_letter
		where reason <> 'forged' and substr(head || substr(body, 1, 1), 1, 1) <> '\x02'`).Scan(&before, &again); err != nil {
		t.Fatal(err)
	}
	if again != before || again == 0 {
		t.Errorf("%d of %d dead letters were sent again", again, before)
	}
	run(t, conn, `select amqp.publish(1, '', 'good', 'behind them')`)
	compare([]string{"behind them"}, w.received(1, "good")).wantExact(t)
}

// withoutSignature is what a content of version 2 is read as where nobody has asked for signatures, or nil.
func withoutSignature(content []byte) []byte {
	end := len(content) - sha256.Size
	if end < 1 || content[0] != 2 {
		return nil
	}
	rest := append([]byte{1}, content[1:end]...)
	if !isEnvelope(rest) {
		return nil
	}
	return rest
}

// isEnvelope is a second reading of the rules in decoder/doc.go, of the form alone.
func isEnvelope(b []byte) bool {
	if len(b) < 6 || b[0] != 1 || !bytes.ContainsRune([]byte("pxqbedcnhrsw"), rune(b[1])) {
		return false
	}
	seen := make(map[byte]bool)
	for b = b[6:]; len(b) >= 4; {
		tag, n := b[0], int(binary.BigEndian.Uint32(b)&0xffffff)
		b = b[4:]
		if tag == 0 && n == 0 {
			return true
		}
		if n == 0 || n > len(b) || seen[tag] || !utf8.Valid(b[:n]) || !bytes.ContainsRune([]byte("xkqmtnychipewausfro"), rune(tag)) {
			return false
		}
		seen[tag], b = true, b[n:]
	}
	return false
}
