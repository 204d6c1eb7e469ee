// Java's own HTTP client, which asks for an upgrade to HTTP/2 with its first request on a connection: creates a task, reads
// it 20 times, sends a body that is too large. Prints the statuses.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;

public class Client {
    static final HttpClient client = HttpClient.newHttpClient();

    static HttpResponse<String> send(String method, String url, BodyPublisher body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).method(method, body).build();
        return client.send(request, BodyHandlers.ofString());
    }

    public static void main(String[] arguments) throws Exception {
        String tasks = arguments[0] + "/api/u/tasks";
        List<Integer> statuses = new ArrayList<>();
        HttpResponse<String> created = send("POST", tasks, BodyPublishers.ofString("{\"title\": \"x\"}"));
        statuses.add(created.statusCode());
        String path = created.headers().firstValue("location").orElseThrow();
        String url = URI.create(arguments[0]).resolve(path).toString();
        for (int n = 0; n < 20; n++) {
            statuses.add(send("GET", url, BodyPublishers.noBody()).statusCode());
        }
        int large = send("POST", tasks, BodyPublishers.ofByteArray(new byte[20_000_000])).statusCode();
        System.out.println("{\"statuses\": " + statuses + ", \"connections\": 1, \"large\": " + large + "}");
    }
}
