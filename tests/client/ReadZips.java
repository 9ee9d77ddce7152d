import java.io.*;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Collections;
import java.util.HexFormat;
import java.util.zip.*;

/** Prints the files of ZIPs, read through the central directory and as a stream: path, size and SHA-256. */
class ReadZips {
    public static void main(String[] archives) throws Exception {
        for (String archive : archives) {
            try (ZipFile file = new ZipFile(archive)) {
                for (ZipEntry entry : Collections.list(file.entries())) {
                    print(archive, "file", entry, file.getInputStream(entry));
                }
            }
            try (ZipInputStream stream = new ZipInputStream(new FileInputStream(archive))) {
                for (ZipEntry entry; (entry = stream.getNextEntry()) != null; ) {
                    print(archive, "stream", entry, stream);
                }
            }
        }
    }

    private static void print(String archive, String how, ZipEntry entry, InputStream input) throws Exception {
        byte[] content = input.readAllBytes();
        if (content.length != entry.getSize()) {
            throw new IOException(entry.getName() + " has another size than its header says");
        }
        HexFormat hex = HexFormat.of();
        String path = hex.formatHex(entry.getName().getBytes(StandardCharsets.UTF_8));
        String digest = hex.formatHex(MessageDigest.getInstance("SHA-256").digest(content));
        System.out.println(archive + " " + how + " " + path + " " + content.length + " " + digest);
    }
}
