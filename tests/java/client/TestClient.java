import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * The stock RocketMQ Java client behind a command line, for the integration tests. One source for rocketmq-client 4.9 and
 * 5.x. Everything on standard output is one JSON object a line; the last one is {"event":"summary",...}. Exit code 0 says
 * that the command ran to its end, not that every send succeeded: the caller judges the lines.
 *
 * A message's key is RUN-SEQ and its body repeats the key, then a filler that follows from the key, so that a reader can tell
 * a whole message from a damaged one and its own run's messages from another's.
 */
public final class TestClient {
    private static final String USAGE = String.join("\n",
        "usage: TestClient COMMAND --topic T [options]",
        "  every command   --namesrv A (default: the environment's NAMESRV_ADDR)  --group G  --vip",
        "  produce, consume --trace [--trace-topic T]",
        "  produce         --count N | --until-stdin-closes, --size B, --threads K, --rate PER_SECOND, --run ID, --start-seq S",
        "                  --mode sync|async|oneway|batch|transaction|request|request-async, --batch N, --tags A,B, --delay-level L",
        "                  --timer sec|ms|at (5.x), --delay-ms MS (of the last message), --delay-step-ms MS (more for each before it),",
        "                  --open (every transaction until the broker asks), --no-answer (when it asks),",
        "                  --recall-odd, --delete-odd (by a message of the same time, with --timer at)",
        "                  --ordered (queue by seq modulo --shards), --timeout MS, --retries N, --queue Q (of every broker)",
        "  consume         --expect N (distinct keys), --timeout S, --linger S, --until-stdin-closes, --orderly, --broadcast",
        "                  --reply (to requests), --reply-at-end (when it ends),",
        "                  --sub EXPR, --sql EXPR, --from first|last|YYYYMMDDhhmmss, --threads K, --fail-first N, --max-reconsume N,",
        "                  --never-modulo N (refuses those whose seq is a multiple of it, each time)",
        "  read            [--broker B] [--queue Q] [--offset O] [--sub EXPR]: pulls every queue up to its end",
        "  offsets         min, max and the group's committed offset of every queue",
        "  offset-by-time  --time MILLIS: the offset of that store time in every queue",
        "  session         runs commands at the same time, as lines of standard input with tabs between the words say:",
        "                  start NAME COMMAND OPTION..., stop NAME; what they print is marked with the name");

    private final Map<String, String> options = new HashMap<>();
    private final String command;
    /** The command's name in a session; null outside of one. */
    private final String name;
    private final CountDownLatch askedToStop = new CountDownLatch(1);
    private static PrintStream out;

    private TestClient(String name, String[] args) {
        this.name = name;
        command = args[0];
        for (int i = 1; i < args.length; i++) {
            if (!args[i].startsWith("--")) {
                throw new IllegalArgumentException("not an option: " + args[i]);
            }
            boolean hasValue = i + 1 < args.length && !args[i + 1].startsWith("--");
            options.put(args[i].substring(2), hasValue ? args[++i] : "true");
        }
    }

    public static void main(String[] args) throws Exception {
        if (args.length == 0 || args[0].equals("help") || args[0].equals("--help")) {
            System.err.println(USAGE);
            System.exit(2);
        }
        // The client logs into files of its own; standard output belongs to the results.
        out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16), false, "UTF-8");
        System.setOut(System.err);
        String home = System.getProperty("testclient.home",
            System.getProperty("java.io.tmpdir") + "/rocketmq-test-client-" + ProcessHandle.current().pid());
        System.setProperty("user.home", home);
        setDefault("rocketmq.client.logRoot", home + "/logs");
        setDefault("rocketmq.client.logLevel", "WARN");
        setDefault("rocketmq.client.localOffsetStoreDir", home + "/offsets");
        setDefault("rocketmq.client.rebalance.waitInterval", "2000");
        setDefault("com.rocketmq.remoting.client.connect.timeout", "15000");
        Thread flusher = new Thread(() -> {
            while (true) {
                LockSupport.parkNanos(20_000_000L);
                flush();
            }
        }, "flusher");
        flusher.setDaemon(true);
        flusher.start();
        Runtime.getRuntime().addShutdownHook(new Thread(TestClient::flush));
        int code = 0;
        try {
            new TestClient(null, args).run();
        } catch (Throwable e) {
            write("event", "error", "error", String.valueOf(e));
            e.printStackTrace();
            code = 1;
        }
        flush();
        // Client threads that are not daemons may outlive shutdown().
        Runtime.getRuntime().halt(code);
    }

    private static void setDefault(String key, String value) {
        if (System.getProperty(key) == null) {
            System.setProperty(key, value);
        }
    }

    private static void flush() {
        synchronized (out) {
            out.flush();
        }
    }

    private void run() throws Exception {
        switch (command) {
            case "produce":
                produce();
                break;
            case "consume":
                consume();
                break;
            case "read":
                read();
                break;
            case "offsets":
                offsets();
                break;
            case "offset-by-time":
                offsetByTime();
                break;
            case "session":
                session();
                break;
            default:
                throw new IllegalArgumentException("no such command: " + command + "\n" + USAGE);
        }
    }

    // ---- produce -----------------------------------------------------------------------------------------------

    private final AtomicLong succeeded = new AtomicLong();
    private final AtomicLong failed = new AtomicLong();
    private final AtomicBoolean stopped = new AtomicBoolean();

    private void produce() throws Exception {
        String mode = text("mode", "sync");
        boolean endless = has("until-stdin-closes");
        long count = endless ? Long.MAX_VALUE : number("count", 1);
        long first = number("start-seq", 0);
        int threads = (int) number("threads", 1);
        long rate = number("rate", 0);
        String run = text("run", Long.toString(System.nanoTime(), 36));
        DefaultMQProducer producer = mode.equals("transaction") ? transactional()
            : new DefaultMQProducer(text("group", "test_producer"), has("trace"), text("trace-topic", null));
        configure(producer);
        producer.setSendMsgTimeout((int) number("timeout", 15_000));
        producer.setRetryTimesWhenSendFailed((int) number("retries", 2));
        producer.setRetryTimesWhenSendAsyncFailed((int) number("retries", 2));
        producer.start();
        warmUp(producer);
        line("event", "started", "run", run);
        if (endless) {
            onStdinClosed(() -> stopped.set(true));
        }
        long began = System.nanoTime();
        AtomicLong next = new AtomicLong(first);
        Semaphore inFlight = new Semaphore(256);
        int batch = mode.equals("batch") ? (int) number("batch", 16) : 1;
        List<Thread> workers = new ArrayList<>();
        for (int t = 0; t < threads; t++) {
            Thread worker = new Thread(() -> {
                while (!stopped.get()) {
                    long seq = next.getAndAdd(batch);
                    if (seq - first >= count) {
                        return;
                    }
                    if (rate > 0) {
                        long due = began + (seq - first) * 1_000_000_000L / rate;
                        while (System.nanoTime() < due && !stopped.get()) {
                            LockSupport.parkNanos(Math.min(due - System.nanoTime(), 50_000_000L));
                        }
                    }
                    int size = (int) Math.min(batch, count - (seq - first));
                    List<Message> messages = new ArrayList<>(size);
                    for (int i = 0; i < size; i++) {
                        messages.add(message(run, seq + i));
                    }
                    sendOne(producer, mode, messages, seq, inFlight);
                }
            }, "sender-" + t);
            worker.start();
            workers.add(worker);
        }
        for (Thread worker : workers) {
            worker.join();
        }
        inFlight.acquire(256);
        line("event", "quiet");
        if (mode.equals("transaction") || mode.equals("oneway")) {
            // One-way requests may still sit in the channel; half messages are asked for by the broker.
            Thread.sleep(number("linger", mode.equals("oneway") ? 1 : 0) * 1000);
        }
        producer.shutdown();
        line("event", "summary", "run", run, "ok", succeeded.get(), "failed", failed.get(), "millis", (System.nanoTime() - began) / 1_000_000);
    }

    /**
     * Asks for the route once, outside of the client's own three-second limit for it, so that a machine which is busy starting
     * this program costs no message. A topic that does not exist is left to the first send.
     */
    private void warmUp(DefaultMQProducer producer) throws InterruptedException {
        for (int i = 0; i < 5; i++) {
            try {
                producer.fetchPublishMessageQueues(text("topic", null));
                return;
            } catch (MQClientException e) {
                if (String.valueOf(e.getCause()).contains("CODE: 17")) {
                    return;
                }
                Thread.sleep(1000);
            }
        }
    }

    private void sendOne(DefaultMQProducer producer, String mode, List<Message> messages, long seq, Semaphore inFlight) {
        Message message = messages.get(0);
        try {
            switch (mode) {
                case "sync":
                    SendResult answer = sendSync(producer, message, seq);
                    if (has("recall-odd") && seq % 2 == 1) {
                        recall(producer, message, answer);
                    }
                    if (has("delete-odd") && seq % 2 == 1) {
                        delete(producer, message, answer);
                    }
                    sent(messages, seq, answer);
                    break;
                case "transaction":
                    sent(messages, seq, producer.sendMessageInTransaction(message, seq));
                    break;
                case "batch":
                    sent(messages, seq, producer.send(messages));
                    break;
                case "oneway":
                    producer.sendOneway(message);
                    succeeded.incrementAndGet();
                    line("seq", seq, "key", message.getKeys(), "status", "ONEWAY", "msgId", MessageClientIDSetter.getUniqID(message));
                    break;
                case "request":
                    replied(message, seq, producer.request(message, number("timeout", 15_000)));
                    break;
                case "request-async":
                    inFlight.acquire();
                    producer.request(message, new RequestCallback() {
                        private final AtomicBoolean done = new AtomicBoolean();

                        // The client also calls this when the request is sent, with whatever reply there is by then.
                        @Override
                        public void onSuccess(Message reply) {
                            if (reply != null && done.compareAndSet(false, true)) {
                                replied(message, seq, reply);
                                inFlight.release();
                            }
                        }

                        @Override
                        public void onException(Throwable e) {
                            if (done.compareAndSet(false, true)) {
                                notReplied(message, seq, e);
                                inFlight.release();
                            }
                        }
                    }, number("timeout", 15_000));
                    break;
                case "async":
                    inFlight.acquire();
                    producer.send(message, new SendCallback() {
                        private final AtomicBoolean done = new AtomicBoolean();

                        @Override
                        public void onSuccess(SendResult result) {
                            if (done.compareAndSet(false, true)) {
                                sent(messages, seq, result);
                                inFlight.release();
                            }
                        }

                        @Override
                        public void onException(Throwable e) {
                            if (done.compareAndSet(false, true)) {
                                notSent(messages, seq, e);
                                inFlight.release();
                            }
                        }
                    });
                    break;
                default:
                    throw new IllegalArgumentException("no such mode: " + mode);
            }
        } catch (RequestTimeoutException e) {
            notReplied(message, seq, e);
        } catch (Exception e) {
            notSent(messages, seq, e);
            if (mode.endsWith("async")) {
                inFlight.release();
            }
            LockSupport.parkNanos(20_000_000L);
        }
    }

    private SendResult sendSync(DefaultMQProducer producer, Message message, long seq) throws Exception {
        if (has("ordered") || has("queue")) {
            long shards = number("shards", 8);
            long queue = number("queue", -1);
            return producer.send(message, (queues, m, arg) -> {
                if (queue < 0) {
                    return queues.get((int) ((Long) arg % shards % queues.size()));
                }
                List<MessageQueue> fitting = new ArrayList<>(queues);
                fitting.removeIf(q -> q.getQueueId() != queue);
                return fitting.get((int) ((Long) arg % fitting.size()));
            }, seq);
        }
        return producer.send(message);
    }

    private void sent(List<Message> messages, long seq, SendResult result) {
        String[] ids = String.valueOf(result.getMsgId()).split(",");
        String[] offsetIds = String.valueOf(result.getOffsetMsgId()).split(",");
        for (int i = 0; i < messages.size(); i++) {
            succeeded.incrementAndGet();
            line("seq", seq + i, "key", messages.get(i).getKeys(), "status", result.getSendStatus().name(),
                "msgId", ids[Math.min(i, ids.length - 1)], "offsetMsgId", offsetIds[Math.min(i, offsetIds.length - 1)],
                "broker", result.getMessageQueue().getBrokerName(), "queueId", result.getMessageQueue().getQueueId(),
                "queueOffset", result.getQueueOffset() + i, "transactionId", result.getTransactionId());
        }
    }

    private void notSent(List<Message> messages, long seq, Throwable e) {
        for (int i = 0; i < messages.size(); i++) {
            failed.incrementAndGet();
            line("seq", seq + i, "key", messages.get(i).getKeys(), "status", "EXCEPTION", "error", String.valueOf(e));
        }
    }

    /** A request was answered; its answer is its key, see reply(). */
    private void replied(Message request, long seq, Message reply) {
        String text = reply == null ? "null" : new String(reply.getBody(), StandardCharsets.UTF_8);
        boolean right = text.equals(replyTo(request));
        (right ? succeeded : failed).incrementAndGet();
        line("seq", seq, "key", request.getKeys(), "status", right ? "REPLIED" : "EXCEPTION", "error", right ? null : "the reply is " + text);
    }

    private void notReplied(Message request, long seq, Throwable e) {
        failed.incrementAndGet();
        line("seq", seq, "key", request.getKeys(), "status", e instanceof RequestTimeoutException ? "TIMEOUT" : "EXCEPTION", "error", String.valueOf(e));
    }

    private static String replyTo(Message request) {
        return "reply to " + request.getKeys();
    }

    /**
     * Sequence numbers end as: 0 modulo 3 commit, 1 roll back, 2 unknown until the broker asks, then commit. With --open all are
     * unknown until it asks, with --no-answer what is unknown stays so.
     */
    private TransactionMQProducer transactional() {
        TransactionMQProducer producer = new TransactionMQProducer(text("group", "test_producer"));
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message message, Object seq) {
                return (Long) seq % 3 == 2 || has("open") ? LocalTransactionState.UNKNOW : decide((Long) seq);
            }

            // A broker may also ask about what it was told already: it writes that down in batches.
            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt message) {
                line("event", "check", "key", message.getKeys());
                return has("no-answer") ? LocalTransactionState.UNKNOW : decide(Long.parseLong(message.getUserProperty("seq")));
            }

            private LocalTransactionState decide(long seq) {
                return seq % 3 == 1 ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
            }
        });
        return producer;
    }

    private Message message(String run, long seq) {
        String key = run + "-" + seq;
        Message message = new Message(text("topic", null), body(key, (int) number("size", 100)));
        message.setKeys(key);
        String[] tags = text("tags", "").split(",");
        if (!tags[0].isEmpty()) {
            message.setTags(tags[(int) (seq % tags.length)]);
        }
        if (has("delay-level")) {
            message.setDelayTimeLevel((int) number("delay-level", 0));
        }
        if (has("timer")) {
            setTime(message, seq);
        }
        message.putUserProperty("seq", Long.toString(seq));
        return message;
    }

    /** Sends what takes a timer message back. */
    private static void delete(DefaultMQProducer producer, Message message, SendResult answer) throws Exception {
        Message deletion = new Message(message.getTopic(), new byte[] {'0'});
        MessageAccessor.putProperty(deletion, "TIMER_DELIVER_MS", message.getProperty("TIMER_DELIVER_MS"));
        MessageAccessor.putProperty(deletion, "TIMER_DEL_UNIQKEY", answer.getMsgId());
        producer.send(deletion, answer.getMessageQueue());
    }

    /** Takes a timer message back, by the methods that only 5.x has. */
    private void recall(DefaultMQProducer producer, Message message, SendResult answer) throws ReflectiveOperationException {
        Object handle = SendResult.class.getMethod("getRecallHandle").invoke(answer);
        producer.getClass().getMethod("recallMessage", String.class, String.class).invoke(producer, message.getTopic(), handle);
    }

    /** The time of delivery, by the methods that only 5.x has. */
    private void setTime(Message message, long seq) {
        long last = number("start-seq", 0) + number("count", 1) - 1;
        long delay = number("delay-ms", 0) + (last - seq) * number("delay-step-ms", 0);
        String kind = text("timer", null);
        String method = kind.equals("sec") ? "setDelayTimeSec" : kind.equals("ms") ? "setDelayTimeMs" : "setDeliverTimeMs";
        long value = kind.equals("sec") ? delay / 1000 : kind.equals("ms") ? delay : System.currentTimeMillis() + delay;
        try {
            Message.class.getMethod(method, long.class).invoke(message, value);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    private static byte[] body(String key, int size) {
        byte[] head = (key + ";").getBytes(StandardCharsets.UTF_8);
        byte[] body = Arrays.copyOf(head, Math.max(size, head.length));
        int seed = key.hashCode();
        for (int i = head.length; i < body.length; i++) {
            body[i] = (byte) (seed + i * 31);
        }
        return body;
    }

    // ---- consume -----------------------------------------------------------------------------------------------

    private final Set<String> seen = ConcurrentHashMap.newKeySet();
    private final AtomicLong delivered = new AtomicLong();
    private final CountDownLatch finished = new CountDownLatch(1);
    private final List<MessageExt> requests = new ArrayList<>();
    private DefaultMQProducer replier;

    private void consume() throws Exception {
        long expect = number("expect", Long.MAX_VALUE);
        long timeout = number("timeout", 60);
        int failFirst = (int) number("fail-first", 0);
        DefaultMQPushConsumer consumer =
            new DefaultMQPushConsumer(text("group", "test_consumer"), has("trace"), text("trace-topic", null));
        configure(consumer);
        consumer.setPersistConsumerOffsetInterval(1000);
        String from = text("from", "first");
        if (from.equals("first")) {
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        } else if (from.equals("last")) {
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        } else {
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
            consumer.setConsumeTimestamp(from);
        }
        if (has("threads")) {
            consumer.setConsumeThreadMax((int) number("threads", 20));
            consumer.setConsumeThreadMin((int) number("threads", 20));
        }
        if (has("max-reconsume")) {
            consumer.setMaxReconsumeTimes((int) number("max-reconsume", 16));
        }
        if (has("broadcast")) {
            setMessageModel(consumer, "BROADCASTING");
        }
        if (has("sql")) {
            consumer.subscribe(text("topic", null), MessageSelector.bySql(text("sql", null)));
        } else {
            consumer.subscribe(text("topic", null), text("sub", "*"));
        }
        if (has("orderly")) {
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                received(messages, context.getMessageQueue(), expect);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                received(messages, context.getMessageQueue(), expect);
                boolean refuse = messages.stream().anyMatch(m -> m.getReconsumeTimes() < failFirst || isNever(m));
                return refuse ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        if (has("reply") || has("reply-at-end")) {
            replier = new DefaultMQProducer("replier_" + text("group", "test_consumer"));
            configure(replier);
            replier.setSendMsgTimeout(15_000);
            replier.setRetryTimesWhenSendFailed(0);
            replier.start();
        }
        consumer.start();
        line("event", "started");
        if (has("until-stdin-closes")) {
            onStdinClosed(finished::countDown);
        }
        Thread watcher = new Thread(() -> watchAssignment(consumer), "assignment");
        watcher.setDaemon(true);
        watcher.start();
        boolean complete = finished.await(timeout, TimeUnit.SECONDS);
        Thread.sleep(number("linger", 0) * 1000);
        consumer.shutdown();
        if (replier != null) {
            synchronized (requests) {
                requests.forEach(this::reply);
            }
            replier.shutdown();
        }
        line("event", "summary", "complete", complete, "distinct", seen.size(), "delivered", delivered.get());
    }

    private boolean isNever(MessageExt message) {
        return has("never-modulo") && Long.parseLong(message.getUserProperty("seq")) % number("never-modulo", 1) == 0;
    }

    private void received(Collection<MessageExt> messages, MessageQueue queue, long expect) {
        for (MessageExt message : messages) {
            delivered.incrementAndGet();
            print(message, queue.getBrokerName());
            if (has("reply")) {
                reply(message);
            }
            if (has("reply-at-end")) {
                synchronized (requests) {
                    requests.add(message);
                }
                line("event", "asked", "by", message.getProperty("REPLY_TO_CLIENT"));
            }
            seen.add(String.valueOf(message.getKeys()));
        }
        if (seen.size() >= expect) {
            finished.countDown();
        }
    }

    private void reply(MessageExt request) {
        String result = null;
        String error = null;
        try {
            Message reply = MessageUtil.createReplyMessage(request, replyTo(request).getBytes(StandardCharsets.UTF_8));
            result = replier.send(reply).getSendStatus().name();
        } catch (Exception e) {
            error = e + ", " + e.getCause();
        }
        line("event", "reply", "to", request.getKeys(), "result", result, "error", error);
    }

    /** The queues that rebalancing gave to this consumer, each time they change. */
    private void watchAssignment(DefaultMQPushConsumer consumer) {
        String last = "";
        while (true) {
            Set<String> mine = new TreeSet<>();
            for (MessageQueue queue : consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()) {
                if (queue.getTopic().equals(text("topic", null))) {
                    mine.add(queue.getBrokerName() + ":" + queue.getQueueId());
                }
            }
            String now = String.join(",", mine);
            if (!now.equals(last)) {
                line("event", "assigned", "queues", now);
                last = now;
            }
            LockSupport.parkNanos(100_000_000L);
        }
    }

    /** MessageModel moved to another package in 5.x. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    private static void setMessageModel(Object consumer, String name) throws Exception {
        for (java.lang.reflect.Method method : consumer.getClass().getMethods()) {
            if (method.getName().equals("setMessageModel")) {
                method.invoke(consumer, Enum.valueOf((Class) method.getParameterTypes()[0], name));
                return;
            }
        }
        throw new NoSuchMethodException("setMessageModel");
    }

    // ---- read, offsets -----------------------------------------------------------------------------------------

    private DefaultMQPullConsumer pullConsumer() throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer(text("group", "test_reader"));
        configure(consumer);
        consumer.start();
        return consumer;
    }

    private List<MessageQueue> queues(DefaultMQPullConsumer consumer) throws Exception {
        List<MessageQueue> chosen = new ArrayList<>();
        for (MessageQueue queue : new TreeSet<>(consumer.fetchSubscribeMessageQueues(text("topic", null)))) {
            boolean fits = (!has("broker") || queue.getBrokerName().equals(text("broker", null)))
                && (!has("queue") || queue.getQueueId() == number("queue", 0));
            if (fits) {
                chosen.add(queue);
            }
        }
        return chosen;
    }

    private void read() throws Exception {
        DefaultMQPullConsumer consumer = pullConsumer();
        long total = 0;
        for (MessageQueue queue : queues(consumer)) {
            long offset = has("offset") ? number("offset", 0) : consumer.minOffset(queue);
            boolean more = true;
            while (more) {
                PullResult result = consumer.pull(queue, text("sub", "*"), offset, 32);
                if (result.getMsgFoundList() != null) {
                    for (MessageExt message : result.getMsgFoundList()) {
                        print(message, queue.getBrokerName());
                        total++;
                    }
                }
                more = result.getNextBeginOffset() > offset && result.getNextBeginOffset() < result.getMaxOffset();
                if (!more) {
                    line("event", "pulled", "broker", queue.getBrokerName(), "queueId", queue.getQueueId(), "status", result.getPullStatus().name(),
                        "next", result.getNextBeginOffset(), "min", result.getMinOffset(), "max", result.getMaxOffset());
                }
                offset = result.getNextBeginOffset();
            }
        }
        consumer.shutdown();
        line("event", "summary", "delivered", total);
    }

    private void offsets() throws Exception {
        DefaultMQPullConsumer consumer = pullConsumer();
        for (MessageQueue queue : queues(consumer)) {
            line("broker", queue.getBrokerName(), "queueId", queue.getQueueId(), "min", consumer.minOffset(queue),
                "max", consumer.maxOffset(queue), "committed", consumer.fetchConsumeOffset(queue, true));
        }
        consumer.shutdown();
        line("event", "summary");
    }

    private void offsetByTime() throws Exception {
        DefaultMQPullConsumer consumer = pullConsumer();
        for (MessageQueue queue : queues(consumer)) {
            line("broker", queue.getBrokerName(), "queueId", queue.getQueueId(),
                "offset", consumer.searchOffset(queue, number("time", 0)));
        }
        consumer.shutdown();
        line("event", "summary");
    }

    // ---- session -----------------------------------------------------------------------------------------------

    private void session() throws Exception {
        Map<String, TestClient> clients = new HashMap<>();
        List<Thread> threads = new ArrayList<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        line("event", "started");
        for (String text = lines.readLine(); text != null; text = lines.readLine()) {
            String[] words = text.split("\t");
            if (words[0].equals("stop")) {
                clients.remove(words[1]).askedToStop.countDown();
                continue;
            }
            TestClient client = new TestClient(words[1], Arrays.copyOfRange(words, 2, words.length));
            clients.put(words[1], client);
            Thread thread = new Thread(client::runInSession, words[1]);
            thread.start();
            threads.add(thread);
        }
        clients.values().forEach(client -> client.askedToStop.countDown());
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private void runInSession() {
        String error = null;
        try {
            run();
        } catch (Exception e) {
            e.printStackTrace();
            error = String.valueOf(e);
        }
        line("event", "ended", "error", error);
    }

    // ---- shared by the commands --------------------------------------------------------------------------------

    private void configure(ClientConfig client) {
        String namesrv = text("namesrv", System.getenv("NAMESRV_ADDR"));
        if (namesrv != null) {
            client.setNamesrvAddr(namesrv);
        }
        client.setVipChannelEnabled(has("vip"));
        client.setPollNameServerInterval(1000);
        client.setHeartbeatBrokerInterval(2000);
        // The limits of a busy machine; what a test measures, it measures itself.
        client.setMqClientApiTimeout(15_000);
        client.setInstanceName("test-" + ProcessHandle.current().pid() + "-" + System.nanoTime());
    }

    /** In a session its input is that of all, and a line of it says when one is to stop. */
    private void onStdinClosed(Runnable action) {
        Thread thread = new Thread(() -> {
            try {
                if (name != null) {
                    askedToStop.await();
                }
                while (name == null && System.in.read() >= 0) {
                    // Only the end matters.
                }
            } catch (IOException | InterruptedException e) {
                // A broken pipe is an end too.
            }
            action.run();
        }, "stdin");
        thread.setDaemon(true);
        thread.start();
    }

    private void print(MessageExt message, String broker) {
        String key = String.valueOf(message.getKeys());
        boolean whole = Arrays.equals(message.getBody(), body(key, message.getBody().length));
        String seq = message.getUserProperty("seq");
        line("seq", seq == null ? null : Long.valueOf(seq), "key", key, "msgId", message.getMsgId(), "broker", broker,
            "topic", message.getTopic(), "queueId", message.getQueueId(), "queueOffset", message.getQueueOffset(),
            "commitLogOffset", message.getCommitLogOffset(), "reconsumeTimes", message.getReconsumeTimes(),
            "tags", message.getTags(), "storeHost", String.valueOf(message.getStoreHost()), "size", message.getBody().length,
            "whole", whole, "born", message.getBornTimestamp(), "stored", message.getStoreTimestamp(), "at", System.currentTimeMillis(),
            "outMs", message.getProperty("TIMER_OUT_MS"), "retryTopic", message.getProperty("RETRY_TOPIC"));
    }

    private boolean has(String option) {
        return options.containsKey(option);
    }

    private String text(String option, String otherwise) {
        String value = options.getOrDefault(option, otherwise);
        if (value == null && option.equals("topic")) {
            throw new IllegalArgumentException("--topic is missing");
        }
        return value;
    }

    private long number(String option, long otherwise) {
        return has(option) ? Long.parseLong(options.get(option)) : otherwise;
    }

    /** Prints one JSON object from alternating names and values, and whose it is. */
    private void line(Object... pairs) {
        if (name == null) {
            write(pairs);
            return;
        }
        Object[] marked = Arrays.copyOf(pairs, pairs.length + 2);
        marked[pairs.length] = "as";
        marked[pairs.length + 1] = name;
        write(marked);
    }

    private static void write(Object... pairs) {
        StringBuilder json = new StringBuilder("{");
        for (int i = 0; i < pairs.length; i += 2) {
            json.append(i == 0 ? "\"" : ",\"").append(pairs[i]).append("\":");
            Object value = pairs[i + 1];
            if (value == null || value instanceof Number || value instanceof Boolean) {
                json.append(value);
            } else {
                quote(json, value.toString());
            }
        }
        synchronized (out) {
            out.println(json.append('}'));
        }
    }

    private static void quote(StringBuilder json, String text) {
        json.append('"');
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < 0x20) {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        json.append('"');
    }
}
