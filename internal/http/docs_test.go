package httpapi

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var screenshot = flag.Bool("screenshot", false, "write docs/openapi-ui.png")

// browserTimeout is for all of it, on a machine that does other things.
const browserTimeout = 2 * time.Minute

// TestDocsInABrowser opens /docs as a developer would: authorises, finds a user by identifier, and sees
// it. The page asks nobody but the service.
func TestDocsInABrowser(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	require.NoError(t, err, "install it: scripts/install-deps --test")
	s := newStack(t)
	s.createIvan()
	base := s.listen()

	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium), chromedp.NoSandbox, // root has no sandbox
		chromedp.WSURLReadTimeout(browserTimeout))...)
	browser, stopBrowser := chromedp.NewContext(allocator)
	ctx, stopWaiting := context.WithTimeout(browser, browserTimeout)
	defer func() {
		stopWaiting()
		stopBrowser()
		stop()
		chromedp.FromContext(browser).Allocator.Wait() // until it has ended and its files are gone
	}()

	var mu sync.Mutex
	var elsewhere, refused []string
	chromedp.ListenTarget(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch event := event.(type) {
		case *network.EventRequestWillBeSent:
			if u := event.Request.URL; !strings.HasPrefix(u, base+"/") && !strings.HasPrefix(u, "data:") {
				elsewhere = append(elsewhere, u)
			}
		case *network.EventLoadingFailed:
			if event.BlockedReason != "" {
				refused = append(refused, string(event.BlockedReason))
			}
		}
	})
	const operation = "#operations-users-get-user-by-identifier"
	var answer string
	var picture []byte
	require.NoError(t, chromedp.Run(ctx,
		network.Enable(),
		emulation.SetDeviceMetricsOverride(1280, 1500, 1, false),
		chromedp.Navigate(base+"/docs"),
		chromedp.Click(".btn.authorize", chromedp.ByQuery),
		chromedp.SendKeys(".auth-container input", strings.TrimPrefix(s.auth, "Bearer "), chromedp.ByQuery),
		chromedp.Click(".auth-container button[type=submit]", chromedp.ByQuery),
		chromedp.WaitVisible(`//div[contains(@class,"auth-container")]//button[text()="Logout"]`, chromedp.BySearch),
		chromedp.Click(".auth-btn-wrapper .btn-done", chromedp.ByQuery),
		chromedp.Click(operation+" .opblock-summary-control", chromedp.ByQuery),
		// The document's example is this user's phone; a plus in a query must survive.
		chromedp.WaitVisible(operation+" tr[data-param-name=identifier] input", chromedp.ByQuery),
		chromedp.Click(operation+" .execute", chromedp.ByQuery),
		chromedp.WaitVisible(operation+" .live-responses-table .response-col_status", chromedp.ByQuery),
		chromedp.Text(operation+" .live-responses-table", &answer, chromedp.ByQuery),
		chromedp.ScrollIntoView(operation, chromedp.ByQuery),
		chromedp.CaptureScreenshot(&picture),
	))
	require.Contains(t, answer, "200")
	require.Contains(t, answer, `"matched_by": "phone"`)
	require.Contains(t, answer, "Ivan.Petrov+shop@Example.com")
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, elsewhere)
	require.Empty(t, refused)
	if *screenshot {
		require.NoError(t, os.WriteFile("../../docs/openapi-ui.png", picture, 0o644))
	}
}
