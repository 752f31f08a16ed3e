package httpapi

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/test/openapi/client"
)

// TestGeneratedClient: what oapi-codegen makes of the document works against the service.
func TestGeneratedClient(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	c, err := client.NewClientWithResponses(s.listen(), client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", s.auth)
		return nil
	}))
	require.NoError(t, err)
	ctx := t.Context()

	group, err := c.CreateUserGroupWithResponse(ctx, client.NewGroup{Name: "client"})
	require.NoError(t, err)
	require.NotNil(t, group.JSON201, string(group.Body))
	created, err := c.CreateUserWithResponse(ctx, client.NewUser{
		Profile:  &map[string]any{"name": "Ivan"},
		Contacts: &[]client.NewUserContact{{Type: "phone", Value: "+7 (999) 123-45-67"}},
		Groups:   &[]string{"client"},
	})
	require.NoError(t, err)
	require.NotNil(t, created.JSON201, string(created.Body))
	user, err := created.JSON201.AsUserDetail()
	require.NoError(t, err)
	id := user.Id

	found, err := c.GetUserByIdentifierWithResponse(ctx, &client.GetUserByIdentifierParams{Identifier: "+79991234567"})
	require.NoError(t, err)
	require.NotNil(t, found.JSON200, string(found.Body))
	require.Equal(t, id, found.JSON200.Id)
	require.EqualValues(t, "phone", found.JSON200.MatchedBy)
	require.Equal(t, "client", found.JSON200.Groups[0].Name)

	etag := found.HTTPResponse.Header.Get("ETag")
	same, err := c.GetUserByIdentifierWithResponse(ctx, &client.GetUserByIdentifierParams{Identifier: "+79991234567", IfNoneMatch: &etag})
	require.NoError(t, err)
	require.Equal(t, http.StatusNotModified, same.StatusCode())

	looked, err := c.LookupUsersWithResponse(ctx, client.Lookup{Identifiers: []string{"89991234567", "nobody"}})
	require.NoError(t, err)
	require.NotNil(t, looked.JSON200, string(looked.Body))
	require.Equal(t, id, looked.JSON200.Results[0].User.Id)
	require.Nil(t, looked.JSON200.Results[1].User)

	require.NoError(t, s.db.WaitForReplay(ctx))
	listed, err := c.ListUsersWithResponse(ctx, &client.ListUsersParams{Limit: new(10)})
	require.NoError(t, err)
	require.NotNil(t, listed.JSON200, string(listed.Body))
	slice, err := listed.JSON200.AsUserSlice()
	require.NoError(t, err)
	require.Len(t, slice.Items, 1)
	require.Nil(t, slice.NextCursor)

	members, err := c.ListUserGroupMembershipsWithResponse(ctx, &client.ListUserGroupMembershipsParams{GroupId: &group.JSON201.Id})
	require.NoError(t, err)
	require.Equal(t, id, members.JSON200.Items[0].UserId)

	bulk, err := c.CreateUsersWithResponse(ctx, &client.CreateUsersParams{DryRun: new(true)}, client.NewUsers{
		Users: []client.NewUserRow{{Phone: "+79991234567", UserGroups: []string{}}, {Phone: "1", UserGroups: []string{"client"}}},
	})
	require.NoError(t, err)
	require.NotNil(t, bulk.JSON200, string(bulk.Body))
	require.EqualValues(t, 1, bulk.JSON200.Exists)
	require.EqualValues(t, 1, bulk.JSON200.Invalid)

	body, contentType := form(t, [3]string{"file", "users.csv", twoRows})
	uploaded, err := c.UploadUsersWithBodyWithResponse(ctx, &client.UploadUsersParams{Prefer: new("respond-async")}, contentType, strings.NewReader(body))
	require.NoError(t, err)
	require.NotNil(t, uploaded.JSON202, string(uploaded.Body))
	job, err := c.GetImportWithResponse(ctx, uploaded.JSON202.Id)
	require.NoError(t, err)
	require.NotNil(t, job.JSON200, string(job.Body))
	result, err := c.GetImportResultWithResponse(ctx, uploaded.JSON202.Id, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, result.StatusCode())

	missing, err := c.GetUserWithResponse(ctx, group.JSON201.Id, nil)
	require.NoError(t, err)
	require.NotNil(t, missing.ApplicationproblemJSON404, string(missing.Body))
	require.EqualValues(t, errcode.NotFound, missing.ApplicationproblemJSON404.ErrorCode)
}
