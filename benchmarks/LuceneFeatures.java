import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.lucene.analysis.core.WhitespaceAnalyzer;
import org.apache.lucene.document.Document;
import org.apache.lucene.document.FeatureField;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.search.BooleanClause;
import org.apache.lucene.search.BooleanQuery;
import org.apache.lucene.search.IndexSearcher;
import org.apache.lucene.search.ScoreDoc;
import org.apache.lucene.store.ByteBuffersDirectory;

/**
 * Searches documents by Lucene's FeatureField, as the fields rank_features and sparse_vector do.
 *
 * <p>java -cp JAR LuceneFeatures.java FOLDER HITS reads FOLDER/documents and FOLDER/queries, whose lines are
 * tab-separated pairs of a term and its weight, and prints for each query its best documents and their scores.
 */
public class LuceneFeatures {
  public static void main(String[] arguments) throws IOException {
    Path folder = Path.of(arguments[0]);
    int hits = Integer.parseInt(arguments[1]);
    try (ByteBuffersDirectory directory = new ByteBuffersDirectory()) {
      try (IndexWriter writer =
          new IndexWriter(directory, new IndexWriterConfig(new WhitespaceAnalyzer()))) {
        for (String line : Files.readAllLines(folder.resolve("documents"))) {
          Document document = new Document();
          for (String[] pair : pairs(line)) {
            document.add(new FeatureField("vector", pair[0], Float.parseFloat(pair[1])));
          }
          writer.addDocument(document);
        }
        writer.forceMerge(1);
      }
      IndexSearcher searcher = new IndexSearcher(DirectoryReader.open(directory));
      for (String line : Files.readAllLines(folder.resolve("queries"))) {
        BooleanQuery.Builder query = new BooleanQuery.Builder();
        for (String[] pair : pairs(line)) {
          float weight = Float.parseFloat(pair[1]);
          query.add(
              FeatureField.newLinearQuery("vector", pair[0], weight), BooleanClause.Occur.SHOULD);
        }
        StringBuilder row = new StringBuilder();
        for (ScoreDoc hit : searcher.search(query.build(), hits).scoreDocs) {
          row.append(hit.doc).append(' ').append(hit.score).append('\t');
        }
        System.out.println(row);
      }
    }
  }

  private static String[][] pairs(String line) {
    String[] parts = line.isEmpty() ? new String[0] : line.split("\t");
    String[][] pairs = new String[parts.length][];
    for (int i = 0; i < parts.length; i++) {
      pairs[i] = parts[i].split(" ");
    }
    return pairs;
  }
}
