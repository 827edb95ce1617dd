package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"
)

var out sync.Mutex

// Prints one JSON object from alternating names and values.
func line(pairs ...interface{}) {
	var text bytes.Buffer
	text.WriteByte('{')
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			text.WriteByte(',')
		}
		value, err := json.Marshal(pairs[i+1])
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&text, "%q:%s", pairs[i], value)
	}
	text.WriteString("}\n")
	out.Lock()
	defer out.Unlock()
	os.Stdout.Write(text.Bytes())
}

// A delivery. A message that the test clients did not send has no seq.
func printMessage(message *primitive.MessageExt, broker string) {
	key := message.GetKeys()
	var seq interface{}
	if text := message.GetProperty("seq"); text != "" {
		seq = json.Number(text)
	}
	var tags interface{}
	if text := message.GetTags(); text != "" {
		tags = text
	}
	line("seq", seq, "key", key, "msgId", message.MsgId, "broker", broker, "topic", message.Topic,
		"queueId", message.Queue.QueueId, "queueOffset", message.QueueOffset, "commitLogOffset", message.CommitLogOffset,
		"reconsumeTimes", message.ReconsumeTimes, "tags", tags, "storeHost", message.StoreHost, "size", len(message.Body),
		"whole", bytes.Equal(message.Body, body(key, len(message.Body))), "born", message.BornTimestamp,
		"stored", message.StoreTimestamp, "at", time.Now().UnixNano()/int64(time.Millisecond))
}

// The key, then a filler that follows from the key, as the Java client makes it.
func body(key string, size int) []byte {
	body := []byte(key + ";")
	var seed int32
	for _, char := range key {
		seed = seed*31 + char
	}
	for i := len(body); i < size; i++ {
		body = append(body, byte(seed+int32(i)*31))
	}
	return body
}

func replyTo(key string) string {
	return "reply to " + key
}
