package accounts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/payment-services/accounts/internal/errcode"
	"github.com/payment-services/accounts/internal/identifier"
)

// maxGroupName is user_groups_name_form, in characters.
const maxGroupName = 100

// groupName returns the canonical form of the name of a group. The names of several groups are written
// as "client,driver", so none has a comma.
func groupName(text string) (identifier.Name, error) {
	name, err := identifier.ParseName(text)
	if err != nil {
		return identifier.Name{}, invalidName(err)
	}
	// The length is that of the canonical form: how a text is composed and what it has around it do not count.
	if utf8.RuneCountInString(name.Text) > maxGroupName {
		return identifier.Name{}, errcode.Invalid(errcode.Field{
			Field: "name", Code: "too_long", Message: fmt.Sprintf("must have at most %d characters", maxGroupName),
		})
	}
	if strings.Contains(name.Text, ",") {
		return identifier.Name{}, errcode.Invalid(errcode.Field{
			Field: "name", Code: "invalid_name", Message: "must not have a comma",
		})
	}
	return name, nil
}

// groupKeys returns the key of each name of a group. The key of a text that names no group is empty:
// the database reports it as unknown, together with the names that it does not find.
func groupKeys(names []string) []string {
	keys := make([]string, len(names))
	for i, text := range names {
		if name, err := groupName(text); err == nil {
			keys[i] = name.Key
		}
	}
	return keys
}

// splitGroups returns the names in a cell such as "client,driver", as they are written there. It leaves out
// blank names and repeated spellings, and stops after MaxGroups + 1 names: such a row is refused.
func splitGroups(cell string) []string {
	var names []string
	for name := range strings.SplitSeq(cell, ",") {
		if !identifier.Blank(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
		if len(names) > MaxGroups {
			break
		}
	}
	return names
}

// contactTypeName returns the canonical name of a contact type. It has small letters only, so it is its
// own key: a text that refers to a contact type does so by nameKey. The database checks the form of the
// name.
func contactTypeName(text string) (string, error) {
	name, err := identifier.ParseName(text)
	if err != nil {
		return "", invalidName(err)
	}
	return name.Key, nil
}

// nameKey returns the key of a name, or "" if the text is no name.
func nameKey(text string) string {
	name, _ := identifier.ParseName(text)
	return name.Key
}

func invalidName(err error) error {
	message := "is not valid"
	if e, ok := errors.AsType[*identifier.Error](err); ok {
		message = e.Message
	}
	return errcode.Invalid(errcode.Field{Field: "name", Code: "invalid_name", Message: message})
}
