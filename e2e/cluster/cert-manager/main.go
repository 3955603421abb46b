// Hosts cert-manager's own controllers: those that approve and sign CertificateRequests with CA and
// SelfSigned issuers. What is not here: the admission webhook (a MutatingAdmissionPolicy stamps the
// requester instead, see ../manifests) and everything about Certificates, which certlet does not use.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of a kubeconfig; empty: in cluster")
	approve := flag.Bool("approve", true, "run the approver that approves every request; false leaves it to a policy or a person")
	namespace := flag.String("cluster-resource-namespace", "cert-manager", "where ClusterIssuers look for Secrets")
	workers := flag.Int("workers", 5, "workers of each controller, 5 as in cert-manager")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *namespace, *approve, *workers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig, namespace string, approve bool, workers int) error {
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig:         kubeconfig,
		KubernetesAPIQPS:   20, // cert-manager's defaults; unused where the API server has priority and fairness
		KubernetesAPIBurst: 50,
		IssuerOptions:      controller.IssuerOptions{ClusterResourceNamespace: namespace},
	})
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}

	controllers := map[string]controller.Interface{}
	for name, construct := range controller.Known() {
		if name == approver.ControllerName && !approve {
			continue
		}
		if controllers[name], err = construct(factory); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}

	// Informers exist only once the controllers have asked for them, so they start last.
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())

	var running sync.WaitGroup
	failed := make(chan error, len(controllers))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for name, c := range controllers {
		running.Go(func() {
			if err := c.Run(workers, ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
				cancel()
			}
		})
	}
	running.Wait()
	close(failed)
	return <-failed
}
