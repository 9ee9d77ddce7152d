package com.example;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.modelregistry.v1.AliasMove;
import com.modelregistry.v1.AliasServiceGrpc;
import com.modelregistry.v1.ArtifactServiceGrpc;
import com.modelregistry.v1.ArtifactSpec;
import com.modelregistry.v1.AuditServiceGrpc;
import com.modelregistry.v1.DownloadArtifactRequest;
import com.modelregistry.v1.DownloadArtifactResponse;
import com.modelregistry.v1.GetModelRequest;
import com.modelregistry.v1.ListAliasMovesRequest;
import com.modelregistry.v1.ListModelsRequest;
import com.modelregistry.v1.ListModelsResponse;
import com.modelregistry.v1.Model;
import com.modelregistry.v1.ModelServiceGrpc;
import com.modelregistry.v1.ModelSpec;
import com.modelregistry.v1.RegisterModelRequest;
import com.modelregistry.v1.RegisterModelResponse;
import com.modelregistry.v1.ResolveModelRequest;
import com.modelregistry.v1.RollbackAliasRequest;
import com.modelregistry.v1.SetAliasRequest;
import com.modelregistry.v1.WatchAuditEventsRequest;
import com.modelregistry.v1.WatchAuditEventsResponse;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Registers, resolves, promotes, rolls back, watches and downloads a model over gRPC.
 *
 * <p>The first argument is the server's address. A token, where the registry asks for one, is read from MODELREG_TOKEN.
 */
public final class Tour {
  private static final int CHUNK_BYTES = 512 * 1024;

  private final ModelServiceGrpc.ModelServiceBlockingStub models;
  private final ModelServiceGrpc.ModelServiceStub registrations;
  private final AliasServiceGrpc.AliasServiceBlockingStub aliases;
  private final ArtifactServiceGrpc.ArtifactServiceBlockingStub artifacts;
  private final AuditServiceGrpc.AuditServiceBlockingStub audit;

  private Tour(ManagedChannel channel) {
    models = ModelServiceGrpc.newBlockingStub(channel);
    registrations = ModelServiceGrpc.newStub(channel);
    aliases = AliasServiceGrpc.newBlockingStub(channel);
    artifacts = ArtifactServiceGrpc.newBlockingStub(channel);
    audit = AuditServiceGrpc.newBlockingStub(channel);
  }

  public static void main(String[] arguments) throws Exception {
    String address = arguments.length > 0 ? arguments[0] : "127.0.0.1:50051";
    var builder = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create());
    String token = System.getenv("MODELREG_TOKEN");
    if (token != null) {
      Metadata headers = new Metadata();
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
      builder.intercept(MetadataUtils.newAttachHeadersInterceptor(headers));
    }
    ManagedChannel channel = builder.build();
    try {
      new Tour(channel).run("example-java-" + UUID.randomUUID().toString().substring(0, 8));
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private void run(String name) throws Exception {
    // A watch from now on: its first message has only the token of where it begins.
    Iterator<WatchAuditEventsResponse> watch =
        audit
            .withDeadlineAfter(1, TimeUnit.MINUTES)
            .watchAuditEvents(WatchAuditEventsRequest.newBuilder().setFilter("name = \"" + name + "\"").build());
    watch.next();

    Model first = register(name, "1.0.0", "weights of the first version".getBytes(StandardCharsets.UTF_8));
    Model second = register(name, "1.1.0", "weights of the second version".getBytes(StandardCharsets.UTF_8));
    String group = second.getModelGroupId();
    System.out.printf("registered %s:%s and %s:%s in group %s%n", name, first.getVersion(), name, second.getVersion(), group);

    for (Model model : new Model[] {first, second}) {
      aliases
          .withDeadlineAfter(30, TimeUnit.SECONDS)
          .setAlias(
              SetAliasRequest.newBuilder()
                  .setModelGroupId(group)
                  .setAlias("production")
                  .setModelId(model.getId())
                  .setReason("example")
                  .setIdempotencyKey(UUID.randomUUID().toString())
                  .build());
    }
    Model production =
        models
            .withDeadlineAfter(30, TimeUnit.SECONDS)
            .resolveModel(ResolveModelRequest.newBuilder().setReference(name + "@production").build())
            .getModel();
    System.out.printf("%s@production is version %s%n", name, production.getVersion());

    var rollback =
        aliases
            .withDeadlineAfter(30, TimeUnit.SECONDS)
            .rollbackAlias(
                RollbackAliasRequest.newBuilder()
                    .setModelGroupId(group)
                    .setAlias("production")
                    .setExpectedModelId(second.getId())
                    .setReason("too slow")
                    .setIdempotencyKey(UUID.randomUUID().toString())
                    .build());
    System.out.printf("rolled back to version %s%n", rollback.getAlias().getVersion());

    var moves =
        aliases
            .withDeadlineAfter(30, TimeUnit.SECONDS)
            .listAliasMoves(
                ListAliasMovesRequest.newBuilder().setModelGroupId(group).setAlias("production").build());
    for (AliasMove move : moves.getAliasMovesList()) {
      System.out.printf(
          "  move %d: %s to version %s (%s)%n",
          move.getRevision(), move.getKind(), move.getAfter().getVersion(), move.getReason());
    }

    list(name);
    download(first);
    printEvents(watch, 5);
    explainError();
  }

  /** Sends a model in one client stream: the spec first, then the bytes in chunks. */
  private Model register(String name, String version, byte[] data) throws Exception {
    var response = new CompletableFuture<RegisterModelResponse>();
    StreamObserver<RegisterModelRequest> requests =
        registrations
            .withDeadlineAfter(1, TimeUnit.MINUTES)
            .registerModel(
                new StreamObserver<>() {
                  @Override
                  public void onNext(RegisterModelResponse message) {
                    response.complete(message);
                  }

                  @Override
                  public void onError(Throwable error) {
                    response.completeExceptionally(error);
                  }

                  @Override
                  public void onCompleted() {}
                });
    var spec =
        ModelSpec.newBuilder()
            .setModel(
                Model.newBuilder().setName(name).setVersion(version).addPrecisions("fp16").putMetrics("f1", 0.9))
            .setArtifact(
                ArtifactSpec.newBuilder()
                    .setFileName("weights.bin")
                    .setSizeBytes(data.length)
                    .setSha256(hex(sha256().digest(data))));
    requests.onNext(
        RegisterModelRequest.newBuilder().setSpec(spec).setIdempotencyKey(UUID.randomUUID().toString()).build());
    // This example sends little. For a large artifact, wait for CallStreamObserver.isReady before each message.
    for (int start = 0; start < data.length; start += CHUNK_BYTES) {
      int size = Math.min(CHUNK_BYTES, data.length - start);
      requests.onNext(RegisterModelRequest.newBuilder().setChunk(ByteString.copyFrom(data, start, size)).build());
    }
    requests.onCompleted();
    return response.get().getModel();
  }

  private void list(String name) {
    String token = "";
    do {
      ListModelsResponse page =
          models
              .withDeadlineAfter(30, TimeUnit.SECONDS)
              .listModels(
                  ListModelsRequest.newBuilder()
                      .setFilter("name = \"" + name + "\"")
                      .setOrderBy("version desc")
                      .setPageSize(1)
                      .setPageToken(token)
                      .build());
      for (Model model : page.getModelsList()) {
        System.out.printf("  %s:%s aliases %s%n", model.getName(), model.getVersion(), model.getAliasesList());
      }
      token = page.getNextPageToken();
    } while (!token.isEmpty());
  }

  /** Reads an artifact and compares its SHA-256 with the registered one. */
  private void download(Model model) throws GeneralSecurityException {
    MessageDigest digest = sha256();
    Iterator<DownloadArtifactResponse> messages =
        artifacts.downloadArtifact(DownloadArtifactRequest.newBuilder().setModelId(model.getId()).build());
    while (messages.hasNext()) {
      digest.update(messages.next().getChunk().asReadOnlyByteBuffer());
    }
    String found = hex(digest.digest());
    if (!found.equals(model.getArtifact().getSha256())) {
      throw new IllegalStateException("the SHA-256 is " + found + ", not " + model.getArtifact().getSha256());
    }
    System.out.printf("downloaded %d bytes with the right SHA-256%n", model.getArtifact().getSizeBytes());
  }

  private static void printEvents(Iterator<WatchAuditEventsResponse> watch, int events) {
    for (int seen = 0; seen < events; ) {
      WatchAuditEventsResponse message = watch.next();
      // Heartbeats have no event. Store message.getResumeToken() to resume after a disconnection.
      if (message.hasEvent()) {
        seen++;
        System.out.printf("  event %d: %s%n", message.getEvent().getSequence(), message.getEvent().getAction());
      }
    }
  }

  /** Shows how to decide by the reason of an error instead of its message. */
  private void explainError() throws InvalidProtocolBufferException {
    try {
      models
          .withDeadlineAfter(30, TimeUnit.SECONDS)
          .getModel(GetModelRequest.newBuilder().setModelId("no-such-model-0000").build());
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() != Status.Code.NOT_FOUND) {
        throw error;
      }
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo info = detail.unpack(ErrorInfo.class);
          System.out.printf("refused as %s %s%n", info.getReason(), info.getMetadataMap());
        }
      }
    }
  }

  private static MessageDigest sha256() throws GeneralSecurityException {
    return MessageDigest.getInstance("SHA-256");
  }

  private static String hex(byte[] digest) {
    return HexFormat.of().formatHex(digest);
  }
}
