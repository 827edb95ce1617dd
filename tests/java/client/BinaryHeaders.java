import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.function.Supplier;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.protocol.LanguageCode;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;

/**
 * Commands as RocketMQ's own encoder writes them: into the file given as its argument go two lines for each, the frame with a
 * JSON header and the same one with a binary header (`rocketmq.serialize.type=ROCKETMQ`), both in hexadecimal:
 * `remoting/tests/java_frames.txt`, which is the same from 4.9.7 and 5.5.0.
 */
public class BinaryHeaders {
    private static final List<String> LINES = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        CommandCustomHeader send = header("SendMessageRequestHeaderV2", "a", "producer group", "b", "Topic", "c", "TBW102", "d", 4,
            "e", 2, "f", 0, "g", 1_700_000_000_123L, "h", 0, "i", "KEYS\u0001one two\u0002TAGS\u0001TagÄ\u0002\u540d\u0001\u503c\u0002",
            "j", 0, "k", false, "m", false);
        CommandCustomHeader pull = header("PullMessageRequestHeader", "consumerGroup", "%RETRY%g", "topic", "Topic", "queueId", 7,
            "queueOffset", Long.MAX_VALUE, "maxMsgNums", 32, "sysFlag", 6, "commitOffset", 0L, "suspendTimeoutMillis", 15_000L,
            "subscription", "TagA || TagB", "subVersion", -1L, "expressionType", "TAG");
        add(() -> RemotingCommand.createRequestCommand(310, send), 395, 1, LanguageCode.JAVA);
        add(() -> RemotingCommand.createRequestCommand(11, pull), 453, Integer.MAX_VALUE, LanguageCode.GO);
        add(() -> oneWay("a body\u0000of bytes"), 0, -7, LanguageCode.DOTNET);
        add(() -> RemotingCommand.createResponseCommand(0, null), 395, 0, LanguageCode.JAVA);
        add(() -> RemotingCommand.createResponseCommand(24, "no consumer, 消费者不存在 \"x\"\n"), 453, 3, LanguageCode.JAVA);
        String[] fields = {"topic", "😀 four bytes", "a", "", "long", "x".repeat(300)};
        add(() -> with(fields), 395, 12_345, LanguageCode.CPP);
        add(() -> with(), 32_767, 8, LanguageCode.OTHER);
        Files.write(Paths.get(args[0]), LINES);
    }

    private static RemotingCommand oneWay(String body) {
        RemotingCommand command = RemotingCommand.createRequestCommand(34, null);
        command.markOnewayRPC();
        command.setBody(body.getBytes(StandardCharsets.UTF_8));
        return command;
    }

    private static RemotingCommand with(String... fields) {
        RemotingCommand command = RemotingCommand.createRequestCommand(105, null);
        command.setExtFields(new HashMap<>());
        for (int i = 0; i < fields.length; i += 2) {
            command.addExtField(fields[i], fields[i + 1]);
        }
        return command;
    }

    private static void add(Supplier<RemotingCommand> commands, int version, int opaque, LanguageCode language) {
        for (SerializeType type : new SerializeType[] {SerializeType.JSON, SerializeType.ROCKETMQ}) {
            RemotingCommand command = commands.get();
            command.setVersion(version);
            command.setOpaque(opaque);
            command.setLanguage(language);
            command.setSerializeTypeCurrentRPC(type);
            ByteBuf frame = Unpooled.buffer();
            command.fastEncodeHeader(frame);
            if (command.getBody() != null) {
                frame.writeBytes(command.getBody());
            }
            StringBuilder line = new StringBuilder();
            while (frame.isReadable()) {
                line.append(String.format("%02x", frame.readByte()));
            }
            LINES.add(line.toString());
        }
    }

    /** A header of this name with these fields; 4.9 and 5.x have it in different packages. */
    private static CommandCustomHeader header(String name, Object... fields) throws Exception {
        Class<?> type;
        try {
            type = Class.forName("org.apache.rocketmq.common.protocol.header." + name);
        } catch (ClassNotFoundException newer) {
            type = Class.forName("org.apache.rocketmq.remoting.protocol.header." + name);
        }
        Object header = type.getDeclaredConstructor().newInstance();
        for (int i = 0; i < fields.length; i += 2) {
            Field field = type.getDeclaredField((String) fields[i]);
            field.setAccessible(true);
            field.set(header, fields[i + 1]);
        }
        return (CommandCustomHeader) header;
    }
}
