package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// What a command of producing goes by.
type sender struct {
	options
	run, mode         string
	plain             rocketmq.Producer
	transactional     rocketmq.TransactionProducer
	inFlight          chan struct{}
	succeeded, failed atomic.Int64
}

func produce(o options) error {
	run := o.text("run", strconv.FormatInt(time.Now().UnixNano(), 36))
	s := &sender{options: o, run: run, mode: o.text("mode", "sync"), inFlight: make(chan struct{}, 256)}
	name := instance()
	if err := s.start(name); err != nil {
		return err
	}
	if strings.HasPrefix(s.mode, "request") {
		if err := s.introduce(name); err != nil {
			return err
		}
	}
	line("event", "started", "run", run)
	var stopped atomic.Bool
	if o.has("until-stdin-closes") {
		onStdinClosed(func() { stopped.Store(true) })
	}
	s.sendAll(&stopped)
	switch s.mode {
	case "transaction":
		// Half messages are asked for by the broker.
		time.Sleep(o.seconds("linger", 0))
	case "oneway", "request", "request-async":
		// Requests may still be on their way; the client hands a reply out before it tells the broker that it has it.
		time.Sleep(o.seconds("linger", 1))
	}
	err := s.shutdown()
	line("event", "summary", "run", run, "ok", s.succeeded.Load(), "failed", s.failed.Load())
	return err
}

func (s *sender) start(name string) (err error) {
	configuration := []producer.Option{
		producer.WithNameServer(s.nameServers()),
		producer.WithGroupName(s.text("group", "test_producer")),
		producer.WithInstanceName(name),
		producer.WithRetry(int(s.number("retries", 2))),
	}
	if s.has("ordered") {
		configuration = append(configuration, producer.WithQueueSelector(producer.NewHashQueueSelector()))
	}
	if s.has("trace") {
		configuration = append(configuration, producer.WithTrace(s.traceConfig()))
	}
	if s.mode == "transaction" {
		if s.transactional, err = rocketmq.NewTransactionProducer(s, configuration...); err == nil {
			err = s.transactional.Start()
		}
		return err
	}
	if s.plain, err = rocketmq.NewProducer(configuration...); err == nil {
		err = s.plain.Start()
	}
	return err
}

// Makes the producer known to every broker of the topic, without which nobody can reply to it. Of itself it sends no heartbeat to a
// broker before it has sent something else there, and then only every thirty seconds; a consumer of the same instance sends
// one at its start, for both.
func (s *sender) introduce(name string) error {
	companion, err := rocketmq.NewPushConsumer(consumer.WithNameServer(s.nameServers()), consumer.WithInstance(name),
		consumer.WithGroupName("companion_"+s.text("group", "test_producer")), consumer.WithConsumerModel(consumer.BroadCasting),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset))
	if err != nil {
		return err
	}
	nothing := consumer.MessageSelector{Type: consumer.TAG, Expression: "NoSuchTag"}
	err = companion.Subscribe(s.options["topic"], nothing,
		func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			return consumer.ConsumeSuccess, nil
		})
	if err == nil {
		err = companion.Start()
	}
	return err
}

func (s *sender) shutdown() error {
	if s.transactional != nil {
		return s.transactional.Shutdown()
	}
	return s.plain.Shutdown()
}

// Sends from --threads goroutines, each taking the next number or batch of numbers; returns when all are answered.
func (s *sender) sendAll(stopped *atomic.Bool) {
	batch, count, first := int64(1), s.number("count", 1), s.number("start-seq", 0)
	if s.mode == "batch" {
		batch = s.number("batch", 16)
	}
	began, rate := time.Now(), s.number("rate", 0)
	var next atomic.Int64
	next.Store(first)
	var workers sync.WaitGroup
	for thread := int64(0); thread < s.number("threads", 1); thread++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for !stopped.Load() {
				seq := next.Add(batch) - batch
				if seq-first >= count && !s.has("until-stdin-closes") {
					return
				}
				if rate > 0 {
					time.Sleep(time.Until(began.Add(time.Duration((seq - first) * int64(time.Second) / rate))))
				}
				var messages []*primitive.Message
				for i := int64(0); i < batch && (seq+i-first < count || s.has("until-stdin-closes")); i++ {
					messages = append(messages, s.message(seq+i))
				}
				s.send(messages, seq)
			}
		}()
	}
	workers.Wait()
	for i := 0; i < cap(s.inFlight); i++ {
		s.inFlight <- struct{}{}
	}
}

func (s *sender) message(seq int64) *primitive.Message {
	key := fmt.Sprintf("%s-%d", s.run, seq)
	message := primitive.NewMessage(s.options["topic"], body(key, int(s.number("size", 100))))
	message.WithKeys([]string{key})
	if tags := strings.Split(s.text("tags", ""), ","); tags[0] != "" {
		message.WithTag(tags[seq%int64(len(tags))])
	}
	if s.has("delay-level") {
		message.WithDelayTimeLevel(int(s.number("delay-level", 0)))
	}
	if s.has("ordered") {
		message.WithShardingKey(fmt.Sprintf("shard-%d", seq%s.number("shards", 8)))
	}
	message.WithProperty("seq", strconv.FormatInt(seq, 10))
	return message
}

func (s *sender) send(messages []*primitive.Message, seq int64) {
	message, timeout := messages[0], time.Duration(s.number("timeout", 15_000))*time.Millisecond
	switch s.mode {
	case "sync", "batch":
		result, err := s.plain.SendSync(context.Background(), messages...)
		s.sent(messages, seq, result, err)
	case "oneway":
		if err := s.plain.SendOneWay(context.Background(), message); err != nil {
			s.sent(messages, seq, nil, err)
			return
		}
		s.succeeded.Add(1)
		line("seq", seq, "key", message.GetKeys(), "status", "ONEWAY")
	case "async":
		s.inFlight <- struct{}{}
		var once sync.Once
		done := func(result *primitive.SendResult, err error) {
			once.Do(func() {
				s.sent(messages, seq, result, err)
				<-s.inFlight
			})
		}
		err := s.plain.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			done(result, err)
		}, message)
		if err != nil {
			done(nil, err)
		}
	case "transaction":
		result, err := s.transactional.SendMessageInTransaction(context.Background(), message)
		if err != nil {
			s.sent(messages, seq, nil, err)
		} else {
			s.sent(messages, seq, result.SendResult, nil)
		}
	case "request":
		reply, err := s.plain.Request(context.Background(), timeout, message)
		s.replied(message, seq, reply, err)
	case "request-async":
		s.inFlight <- struct{}{}
		var once sync.Once
		done := func(reply *primitive.Message, err error) {
			once.Do(func() {
				s.replied(message, seq, reply, err)
				<-s.inFlight
			})
		}
		err := s.plain.RequestAsync(context.Background(), timeout, func(_ context.Context, reply *primitive.Message, err error) {
			done(reply, err)
		}, message)
		if err != nil {
			done(nil, err)
			return
		}
		// The client itself looks for requests without a reply every ten minutes.
		time.AfterFunc(timeout, func() { done(nil, fmt.Errorf("no reply within %v", timeout)) })
	default:
		panic("no such mode: " + s.mode)
	}
}

func (s *sender) sent(messages []*primitive.Message, seq int64, result *primitive.SendResult, err error) {
	for i, message := range messages {
		if err != nil {
			s.failed.Add(1)
			line("seq", seq+int64(i), "key", message.GetKeys(), "status", "EXCEPTION", "error", err.Error())
			continue
		}
		s.succeeded.Add(1)
		ids, offsetIds := strings.Split(result.MsgID, ","), strings.Split(result.OffsetMsgID, ",")
		line("seq", seq+int64(i), "key", message.GetKeys(), "status", status(result.Status), "msgId", at(ids, i),
			"offsetMsgId", at(offsetIds, i), "broker", result.MessageQueue.BrokerName, "queueId", result.MessageQueue.QueueId,
			"queueOffset", result.QueueOffset+int64(i), "transactionId", result.TransactionID)
	}
}

func at(parts []string, index int) string {
	if index < len(parts) {
		return parts[index]
	}
	return parts[len(parts)-1]
}

func status(status primitive.SendStatus) string {
	switch status {
	case primitive.SendOK:
		return "SEND_OK"
	case primitive.SendFlushDiskTimeout:
		return "FLUSH_DISK_TIMEOUT"
	case primitive.SendFlushSlaveTimeout:
		return "FLUSH_SLAVE_TIMEOUT"
	case primitive.SendSlaveNotAvailable:
		return "SLAVE_NOT_AVAILABLE"
	}
	return "UNKNOWN"
}

// A request was answered, or not; the answer is its key, see replyTo.
func (s *sender) replied(request *primitive.Message, seq int64, reply *primitive.Message, err error) {
	if err == nil && (reply == nil || string(reply.Body) != replyTo(request.GetKeys())) {
		err = fmt.Errorf("the reply is %v", reply)
	}
	if err != nil {
		s.failed.Add(1)
		line("seq", seq, "key", request.GetKeys(), "status", "EXCEPTION", "error", err.Error())
		return
	}
	s.succeeded.Add(1)
	line("seq", seq, "key", request.GetKeys(), "status", "REPLIED")
}

// ExecuteLocalTransaction ends them by number: 0 modulo 3 commit, 1 roll back, 2 unknown until the broker asks, then commit. With
// --open all are unknown until it asks, with --no-answer what is unknown stays so.
func (s *sender) ExecuteLocalTransaction(message *primitive.Message) primitive.LocalTransactionState {
	seq := seqOf(message)
	if seq%3 == 2 || s.has("open") {
		return primitive.UnknowState
	}
	return decide(seq)
}

// CheckLocalTransaction is the broker's question. It may also ask about what it was told already.
func (s *sender) CheckLocalTransaction(message *primitive.MessageExt) primitive.LocalTransactionState {
	line("event", "check", "key", message.GetKeys())
	if s.has("no-answer") {
		return primitive.UnknowState
	}
	return decide(seqOf(&message.Message))
}

func decide(seq int64) primitive.LocalTransactionState {
	if seq%3 == 1 {
		return primitive.RollbackMessageState
	}
	return primitive.CommitMessageState
}

func seqOf(message *primitive.Message) int64 {
	seq, err := strconv.ParseInt(message.GetProperty("seq"), 10, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "a transaction of somebody else:", message)
	}
	return seq
}
