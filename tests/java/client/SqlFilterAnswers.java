import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.filter.SqlFilter;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;

/**
 * What RocketMQ's own SQL92 filter answers: prints the table given as its argument with the answers put in anew. A line
 * `M` is a message, its properties separated by tabs; a line `E` is an expression and one letter for each message:
 * T true, F false, U unknown, X an exception; a lone P where the expression does not compile. In both, \t, \n, \r, \f and \\
 * are written so.
 */
public class SqlFilterAnswers {
    public static void main(String[] args) throws Exception {
        Path table = Paths.get(args[0]);
        List<Map<String, Object>> messages = new ArrayList<>();
        StringBuilder out = new StringBuilder();
        for (String line : new String(Files.readAllBytes(table), StandardCharsets.UTF_8).split("\n")) {
            String[] fields = line.split("\t");
            if (fields[0].equals("M")) {
                Map<String, Object> message = new HashMap<>();
                for (int i = 1; i < fields.length; i++) {
                    String[] pair = plain(fields[i]).split("=", 2);
                    message.put(pair[0], pair[1]);
                }
                messages.add(message);
            }
            if (fields[0].equals("E")) {
                line = "E\t" + fields[1] + "\t" + answers(plain(fields[1]), messages);
            }
            out.append(line).append('\n');
        }
        System.out.write(out.toString().getBytes(StandardCharsets.UTF_8));
        System.out.flush();
    }

    private static String answers(String text, List<Map<String, Object>> messages) {
        Expression expression;
        try {
            expression = new SqlFilter().compile(text);
        } catch (Throwable error) {
            if (System.getenv("SHOW_ERRORS") != null) {
                System.err.println(text + "\n    " + error.getMessage());
            }
            return "P";
        }
        StringBuilder answers = new StringBuilder();
        for (Map<String, Object> message : messages) {
            answers.append(answer(expression, message));
        }
        return answers.toString();
    }

    private static char answer(Expression expression, Map<String, Object> message) {
        EvaluationContext context = new EvaluationContext() {
            @Override
            public Object get(String name) {
                return message.get(name);
            }

            @Override
            public Map<String, Object> keyValues() {
                return message;
            }
        };
        try {
            Object answer = expression.evaluate(context);
            return answer == null ? 'U' : (Boolean) answer ? 'T' : 'F';
        } catch (Throwable error) {
            return 'X';
        }
    }

    private static String plain(String field) {
        StringBuilder plain = new StringBuilder();
        for (int i = 0; i < field.length(); i++) {
            char c = field.charAt(i);
            if (c == '\\') {
                i++;
                int at = "tnrf".indexOf(field.charAt(i));
                c = at < 0 ? field.charAt(i) : "\t\n\r\f".charAt(at);
            }
            plain.append(c);
        }
        return plain.toString();
    }
}
