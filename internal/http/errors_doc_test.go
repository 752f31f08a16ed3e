package httpapi

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
)

// internal/postgres tests the rest of the document.
func TestDocumentedStatuses(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/errors.md")
	require.NoError(t, err)
	documented := map[errcode.Code]int{}
	for _, row := range regexp.MustCompile(`(?m)\| ([A-Z_]+) \| ([0-9]{3}) \|`).FindAllStringSubmatch(string(text), -1) {
		status, err := strconv.Atoi(row[2])
		require.NoError(t, err)
		documented[errcode.Code(row[1])] = status
	}
	require.Equal(t, statuses, documented)
}
