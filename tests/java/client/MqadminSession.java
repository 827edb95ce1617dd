import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * RocketMQ's own mqadmin for many commands in one process: reads one command line per line of standard input (words separated by
 * tabs), runs it as mqadmin's main class would, and marks its end with a line of its own. Starting a Java program for every
 * command costs more than all the commands together.
 */
public final class MqadminSession {
    private MqadminSession() {
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            MQAdminStartup.main0(line.split("\t"), null);
            System.err.flush();
            System.out.println();
            System.out.println("<<end of command>>");
            System.out.flush();
        }
        Runtime.getRuntime().halt(0);
    }
}
