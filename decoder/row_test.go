package decoder_test

import (
	stdcmp "cmp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"

	"github.com/pgamqp/pgamqp/decoder"
)

// Changes of one transaction keep their order, also those of one record, and a message
// that ends where the next row's record starts.
func TestPositionsOfChangesAreInOrder(t *testing.T) {
	at := func(lsn, ordinal int) decoder.Message {
		m := decoder.Message{LSN: 0x100, Transactional: true, Commit: 0x500}
		m.LSN += pglogrepl.LSN(lsn)
		if ordinal > 0 {
			m.Change = &decoder.Change{Ordinal: ordinal}
		}
		return m
	}
	inOrder := []decoder.Message{at(1, 1), at(1, 2), at(5, 0), at(5, 3), at(9, 0), at(20, 4)}
	for i := range inOrder {
		for j := range inOrder {
			if got := inOrder[i].Position().Compare(inOrder[j].Position()); got != stdcmp.Compare(i, j) {
				t.Errorf("%d with %d: %d", i, j, got)
			}
		}
	}
}

func TestValuesOfATuple(t *testing.T) {
	got := decoder.Tuple("nut\x00\x00\x00\x02abt\x00\x00\x00\x00").Values(nil)
	want := []decoder.Value{{State: decoder.Null}, {State: decoder.Unchanged}, {State: decoder.Text, Text: []byte("ab")}, {State: decoder.Text, Text: []byte{}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

// The head that is written is the one that the SQL functions write, for every field.
func TestHeadIsWrittenAsItIsRead(t *testing.T) {
	for _, v := range vectors(t) {
		content := unhex(t, v.ContentHex)
		e, err := decoder.ParseEnvelope(content)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decoder.ParseEnvelope(append(e.AppendHead(nil), e.Body...))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if diff := cmp.Diff(read(e), read(again)); diff != "" || again.Kind != e.Kind || again.BrokerID != e.BrokerID || string(again.Body) != string(e.Body) {
			t.Errorf("%s: want -, got +:\n%s", v.Name, diff)
		}
	}
}
