/* Prints 0, 1, 2, … from a thread pool; each number is a checksum's witness. */
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Witness {
    public static void main(String[] arguments) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(3);
        List<Long> seen = new ArrayList<>();
        for (long n = 0; ; n++) {
            final long number = n;
            Future<Long> twice = pool.submit(() -> number * 2);
            if (twice.get() != 2 * n) throw new IllegalStateException("wrong sum");
            seen.add(n);
            if (seen.get((int) (n / 2)) != n / 2) throw new IllegalStateException("wrong memory");
            System.out.println(n);
            System.out.flush();
            Thread.sleep(100);
        }
    }
}
