// Register, resolve, promote, roll back, watch and download a model over gRPC.
//
//	go run . 127.0.0.1:50051
//
// A token, where the registry asks for one, is read from MODELREG_TOKEN.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	registry "modelregistry-example/gen/modelregistry/v1"
)

const chunkBytes = 512 * 1024

type client struct {
	models    registry.ModelServiceClient
	aliases   registry.AliasServiceClient
	artifacts registry.ArtifactServiceClient
	audit     registry.AuditServiceClient
}

func main() {
	log.SetFlags(0)
	address := "127.0.0.1:50051"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := run(address); err != nil {
		log.Fatal(err)
	}
}

func run(address string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	c := client{
		models:    registry.NewModelServiceClient(connection),
		aliases:   registry.NewAliasServiceClient(connection),
		artifacts: registry.NewArtifactServiceClient(connection),
		audit:     registry.NewAuditServiceClient(connection),
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if token := os.Getenv("MODELREG_TOKEN"); token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	return c.tour(ctx, "example-go-"+rand.Text()[:8])
}

func (c client) tour(ctx context.Context, name string) error {
	// A watch from now on: its first message has only the token of where it begins.
	watchCtx, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	watch, err := c.audit.WatchAuditEvents(watchCtx, &registry.WatchAuditEventsRequest{Filter: fmt.Sprintf("name = %q", name)})
	if err != nil {
		return err
	}
	if _, err = watch.Recv(); err != nil {
		return err
	}

	first, err := c.register(ctx, name, "1.0.0", []byte("weights of the first version"))
	if err != nil {
		return err
	}
	second, err := c.register(ctx, name, "1.1.0", []byte("weights of the second version"))
	if err != nil {
		return err
	}
	fmt.Printf("registered %s:%s and %s:%s in group %s\n", name, first.Version, name, second.Version, second.ModelGroupId)

	for _, model := range []*registry.Model{first, second} {
		if _, err := c.aliases.SetAlias(ctx, &registry.SetAliasRequest{
			ModelGroupId:   model.ModelGroupId,
			Alias:          "production",
			ModelId:        model.Id,
			Reason:         "example",
			IdempotencyKey: rand.Text(),
		}); err != nil {
			return err
		}
	}
	production, err := c.resolve(ctx, name+"@production")
	if err != nil {
		return err
	}
	fmt.Printf("%s@production is version %s\n", name, production.Version)

	rollback, err := c.aliases.RollbackAlias(ctx, &registry.RollbackAliasRequest{
		ModelGroupId:    second.ModelGroupId,
		Alias:           "production",
		ExpectedModelId: &second.Id,
		Reason:          "too slow",
		IdempotencyKey:  rand.Text(),
	})
	if err != nil {
		return err
	}
	fmt.Printf("rolled back to version %s\n", rollback.Alias.Version)

	moves, err := c.aliases.ListAliasMoves(ctx, &registry.ListAliasMovesRequest{ModelGroupId: second.ModelGroupId, Alias: "production"})
	if err != nil {
		return err
	}
	for _, move := range moves.AliasMoves {
		fmt.Printf("  move %d: %s to version %s (%s)\n", move.Revision, move.Kind, move.After.GetVersion(), move.Reason)
	}

	if err := c.list(ctx, name); err != nil {
		return err
	}
	if err := c.download(ctx, first); err != nil {
		return err
	}
	if err := watched(watch, 5); err != nil {
		return err
	}
	return c.explainError(ctx)
}

// register sends a model in one client stream: the spec first, then the bytes in chunks.
func (c client) register(ctx context.Context, name, version string, data []byte) (*registry.Model, error) {
	stream, err := c.models.RegisterModel(ctx)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(data)
	size := int64(len(data))
	spec := &registry.RegisterModelRequest{
		Payload: &registry.RegisterModelRequest_Spec{Spec: &registry.ModelSpec{
			Model:    &registry.Model{Name: name, Version: version, Precisions: []string{"fp16"}, Metrics: map[string]float64{"f1": 0.9}},
			Artifact: &registry.ArtifactSpec{FileName: "weights.bin", SizeBytes: &size, Sha256: hex.EncodeToString(digest[:])},
		}},
		IdempotencyKey: rand.Text(),
	}
	// An error of Send is io.EOF where the server has ended the call: CloseAndRecv returns why.
	err = stream.Send(spec)
	for start := 0; err == nil && start < len(data); start += chunkBytes {
		chunk := data[start:min(start+chunkBytes, len(data))]
		err = stream.Send(&registry.RegisterModelRequest{Payload: &registry.RegisterModelRequest_Chunk{Chunk: chunk}})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	return response.Model, nil
}

func (c client) resolve(ctx context.Context, reference string) (*registry.Model, error) {
	response, err := c.models.ResolveModel(ctx, &registry.ResolveModelRequest{Reference: reference})
	if err != nil {
		return nil, err
	}
	return response.Model, nil
}

func (c client) list(ctx context.Context, name string) error {
	request := &registry.ListModelsRequest{Filter: fmt.Sprintf("name = %q", name), OrderBy: "version desc", PageSize: 1}
	for {
		page, err := c.models.ListModels(ctx, request)
		if err != nil {
			return err
		}
		for _, model := range page.Models {
			fmt.Printf("  %s:%s aliases %v\n", model.Name, model.Version, model.Aliases)
		}
		if page.NextPageToken == "" {
			return nil
		}
		request.PageToken = page.NextPageToken
	}
}

// download reads an artifact and compares its SHA-256 with what was registered.
func (c client) download(ctx context.Context, model *registry.Model) error {
	stream, err := c.artifacts.DownloadArtifact(ctx, &registry.DownloadArtifactRequest{ModelId: model.Id})
	if err != nil {
		return err
	}
	digest := sha256.New()
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		digest.Write(message.GetChunk())
	}
	if found := hex.EncodeToString(digest.Sum(nil)); found != model.Artifact.Sha256 {
		return fmt.Errorf("the artifact of %s has the SHA-256 %s, not %s", model.Id, found, model.Artifact.Sha256)
	}
	fmt.Printf("downloaded %d bytes with the right SHA-256\n", model.Artifact.SizeBytes)
	return nil
}

func watched(watch grpc.ServerStreamingClient[registry.WatchAuditEventsResponse], events int) error {
	for seen := 0; seen < events; {
		message, err := watch.Recv()
		if err != nil {
			return err
		}
		// Heartbeats have no event. Store message.ResumeToken to go on here after a disconnection.
		if event := message.Event; event != nil {
			seen++
			fmt.Printf("  event %d: %s\n", event.Sequence, event.Action)
		}
	}
	return nil
}

// explainError shows how to decide by the reason of an error instead of its message.
func (c client) explainError(ctx context.Context) error {
	_, err := c.models.GetModel(ctx, &registry.GetModelRequest{ModelId: "no-such-model-0000"})
	refusal := status.Convert(err)
	if refusal.Code() != codes.NotFound {
		return fmt.Errorf("expected NOT_FOUND: %w", err)
	}
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fmt.Printf("refused as %s %v\n", info.Reason, info.Metadata)
		}
	}
	return nil
}
